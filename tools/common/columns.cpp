// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/columns.h"

#include <libsmartcols.h>
#include <strings.h>

#include <algorithm>
#include <memory>
#include <new>

namespace fpolicy::tools {

void TableOptions::add_to(CLI::App& app) {
  app.add_option("-o,--output", output, "Columns to show, with commas between them")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("LIST");
  app.add_flag("--raw", raw, "Columns without alignment, for scripts");
  app.add_flag("--noheadings", no_headings, "No headings");
}

bool same_name(std::string_view a, std::string_view b) {
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the size is given
  return a.size() == b.size() && strncasecmp(a.data(), b.data(), a.size()) == 0;
}

void print_table(const std::vector<Heading>& headings, const std::vector<std::vector<std::string>>& cells,
                 const TableOptions& options) {
  struct Unref {
    void operator()(libscols_table* table) const { scols_unref_table(table); }
  };
  const std::unique_ptr<libscols_table, Unref> table(scols_new_table());
  if (!table) throw std::bad_alloc();
  scols_table_enable_raw(table.get(), options.raw ? 1 : 0);
  scols_table_enable_noheadings(table.get(), options.no_headings ? 1 : 0);
  for (const Heading& heading : headings) {
    scols_table_new_column(table.get(), heading.name.c_str(), 0, heading.right ? SCOLS_FL_RIGHT : 0);
  }
  for (const std::vector<std::string>& row : cells) {
    libscols_line* line = scols_table_new_line(table.get(), nullptr);
    if (line == nullptr) throw std::bad_alloc();
    for (std::size_t i = 0; i < row.size(); ++i) scols_line_set_data(line, i, row[i].c_str());
  }
  scols_print_table(table.get());
}

}  // namespace fpolicy::tools
