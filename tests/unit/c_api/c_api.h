/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef FPOLICY_TESTS_C_API_H
#define FPOLICY_TESTS_C_API_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Each returns 0, or the line of the check that failed. */
int c_api_errors(void);
int c_api_versions(void);
/* In an empty directory. */
int c_api_open(const char* directory);
int c_api_tags(const char* directory);
int c_api_tag_errors(const char* directory);
int c_api_results(const char* directory);
int c_api_results_errors(const char* directory);
/* `status`: what fpolicy_migrate returned where that is no fault of the library's (privilege). */
int c_api_child(int* status, char* message, size_t message_size);

#ifdef __cplusplus
}
#endif

#endif
