// SPDX-License-Identifier: LGPL-2.1-or-later
// Output of many things of one kind: columns declared once give the table and the JSON.
#pragma once

#include "common/text.h"

#include <CLI/CLI.hpp>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::tools {

template <class Row>
struct Column {
  std::string name;  ///< its heading, and what -o calls it
  std::string help;
  bool right = false;  ///< numbers
  bool by_default = true;
  std::function<std::string(const Row&)> text;
  /// Sets what it has to say in the object of a row.
  std::function<void(const Row&, Json&)> json;
};

struct TableOptions {
  std::vector<std::string> output;  ///< names of columns; empty: those by default
  bool raw = false;
  bool no_headings = false;
  void add_to(CLI::App& app);
};

struct Heading {
  std::string name;
  bool right = false;
};

/// Cells by row. Columns without any text are left out where `drop_empty` names them.
void print_table(const std::vector<Heading>& headings, const std::vector<std::vector<std::string>>& cells,
                 const TableOptions& options);

/// Names are compared without regard to case.
bool same_name(std::string_view a, std::string_view b);

/// The columns that the options ask for. `unknown` is set to a name that is none.
template <class Row>
std::vector<const Column<Row>*> choose(const std::vector<Column<Row>>& columns, const TableOptions& options,
                                       std::string& unknown) {
  std::vector<const Column<Row>*> chosen;
  for (const Column<Row>& column : columns) {
    if (options.output.empty() && column.by_default) chosen.push_back(&column);
  }
  for (const std::string& name : options.output) {
    const auto before = chosen.size();
    for (const Column<Row>& column : columns) {
      if (same_name(column.name, name)) chosen.push_back(&column);
    }
    if (chosen.size() == before) unknown = name;
  }
  return chosen;
}

template <class Row>
std::string column_help(const std::vector<Column<Row>>& columns) {
  std::string text = "Columns for -o:\n";
  for (const Column<Row>& column : columns) {
    text += "  " + column.name + std::string(column.name.size() < 12 ? 12 - column.name.size() : 1, ' ') +
            column.help + "\n";
  }
  return text;
}

template <class Row>
void print_rows(const std::vector<const Column<Row>*>& columns, const std::vector<Row>& rows,
                const TableOptions& options) {
  std::vector<Heading> headings;
  for (const auto* column : columns) headings.push_back({column->name, column->right});
  std::vector<std::vector<std::string>> cells;
  cells.reserve(rows.size());
  for (const Row& row : rows) {
    auto& line = cells.emplace_back();
    for (const auto* column : columns) line.push_back(column->text(row));
  }
  print_table(headings, cells, options);
}

template <class Row>
Json to_json(const std::vector<const Column<Row>*>& columns, const Row& row) {
  Json json;
  for (const auto* column : columns) column->json(row, json);
  return json;
}

}  // namespace fpolicy::tools
