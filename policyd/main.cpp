// SPDX-License-Identifier: LGPL-2.1-or-later
// policyd: brings files' page-cache pages where their policies want them, when jobs move and when tags
// change.
#include "daemon.h"
#include "interface.h"
#include "journal.h"

#include <CLI/CLI.hpp>
#include <pthread.h>

#include <cstddef>
#include <fstream>
#include <string>

namespace {

constexpr int exit_failed = 1;
constexpr int exit_unusable = 2;  // wrong usage or configuration: starting again does not help

/// Every stack of 8 MiB may get a huge page for the few KiB that are used: 2 MiB each, or not, as addresses
/// fall.
void keep_stacks_small() {
  constexpr std::size_t bytes = 1U << 20U;
  pthread_attr_t attributes;
  if (::pthread_attr_init(&attributes) != 0) return;
  if (::pthread_attr_setstacksize(&attributes, bytes) == 0) ::pthread_setattr_default_np(&attributes);
  ::pthread_attr_destroy(&attributes);
}

/// The unit starts policyd out of the OOM killer's reach, since what has begun there may go back, and the
/// sentinel does. policyd itself, which is started again, is no better than others.
void become_killable() {
  std::fstream file("/proc/self/oom_score_adj");
  int adjustment = 0;
  constexpr int never = -1000;
  if (!(file >> adjustment) || adjustment != never) return;
  file.seekp(0);
  file << 0 << std::flush;
}

int run(const fpolicy::policyd::Options& options) {
  using namespace fpolicy::policyd;
  keep_stacks_small();
  become_killable();
  auto daemon = Daemon::open(options);
  if (!daemon) {
    log_line(Level::error, daemon.error().message);
    const int code = daemon.error().code;
    return code == EINVAL || code == EPERM || code == EALREADY || code == ENOENT ? exit_unusable
                                                                                 : exit_failed;
  }
  if (const auto status = (*daemon)->run(); !status) {
    log_line(Level::error, status.error().message);
    return exit_failed;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  fpolicy::policyd::Options options;
  CLI::App app("Keeps files' page-cache pages where their policies want them.", "policyd");
  app.set_version_flag("--version", std::string("policyd (fpolicy) ") + fpolicy::policyd::version);
  const auto* config = app.add_option("--config", options.config, "configuration file")
                           ->type_name("FILE")
                           ->capture_default_str();
  app.add_option("--state-dir", options.state_directory, "where the database is")
      ->type_name("DIRECTORY")
      ->capture_default_str();
  app.add_option("--socket", options.socket, "where clients connect")
      ->type_name("PATH")
      ->capture_default_str();
  app.add_option("--sentinel", options.sentinel, "the program that answers for the guard")
      ->type_name("PROGRAM")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : exit_unusable;
  }
  options.config_required = config->count() > 0;
  return run(options);
}
