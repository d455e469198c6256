// SPDX-License-Identifier: LGPL-2.1-or-later
// What every command has in common: options, messages, exit status, names from stdin, progress.
#pragma once

#include <fpolicy/result.h>

#include <CLI/CLI.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fpolicy::tools {

/// Exit status of every command.
enum ExitStatus : std::uint8_t {
  all_well = 0,
  some_failed = 1,  ///< some file failed, or --check found fault; each has its line on stderr
  wrong_usage = 2,  ///< usage or configuration; nothing was done
};

/// Adds an option that takes one text, in argv's own bytes.
CLI::Option* add_text(CLI::App& app, const std::string& names, std::string& target, const std::string& type,
                      const std::string& description);

class Command {
 public:
  /// `usage`: what stands behind the command's name, a line for each form.
  Command(std::string name, const std::string& summary, std::vector<std::string> usage);

  [[nodiscard]] CLI::App& app() { return app_; }

  /// Adds the names a command works on: positional, in argv's own bytes. CLI11's vectors would take a name
  /// like
  /// "[a,b]" apart.
  void add_names(const std::string& label, const std::string& description, CLI::App* to = nullptr);
  /// Adds -0, --null.
  void add_null() { add_null(app_); }
  void add_null(CLI::App& to);
  /// Adds --json.
  CLI::Option* add_json();

  /// Parses; a value is the exit status to end with at once (--help, --version, wrong usage).
  std::optional<int> parse(int argc, char** argv);

  [[nodiscard]] std::vector<std::string>& names() { return names_; }
  [[nodiscard]] bool null() const { return null_; }
  [[nodiscard]] bool json() const { return json_; }

  /// Calls `each` for every name: those of the command line, then with -0 those from stdin. A name that is
  /// too long is reported.
  void for_each_name(const std::function<void(const std::string&)>& each);

  /// Reports wrong usage and returns the exit status for it.
  int usage_error(const std::string& message) const;
  /// "NAME: MESSAGE" on stderr, counted as a failure. Thread-safe.
  void error(const std::string& message);
  /// "NAME: FILE: MESSAGE" on stderr, counted as a failure. What the message repeats of the file's name is
  /// left out. Thread-safe.
  void error(std::string_view file, const Error& error) { this->error(file, file, error); }
  /// The same for a file that was named in another way than by the path that the message may repeat.
  void error(std::string_view name, std::string_view path, const Error& error);
  /// "NAME: MESSAGE" on stderr. Thread-safe.
  void note(const std::string& message);

  /// Writes to stdout. With --json the output is objects of an array, each behind a comma: the first loses
  /// its own.
  void print(std::string_view output);

  /// Shows "NAME: WHAT" on a terminal once the work has taken a second, now and then.
  void progress(const std::function<std::string()>& what);

  [[nodiscard]] std::uint64_t failures() const { return failures_; }
  /// Writes what stdout holds back; a failure there counts. Returns the exit status.
  int finish();

 private:
  void line(const std::string& text);
  void clear_progress();

  std::string name_;
  std::vector<std::string> usage_;
  CLI::App app_;
  std::vector<std::string> names_;
  bool null_ = false;
  bool json_ = false;
  bool printed_ = false;
  std::atomic<std::uint64_t> failures_ = 0;
  std::mutex mutex_;  ///< stderr
  std::chrono::steady_clock::time_point next_progress_;
  bool progress_shown_ = false;
};

/// Where the parts of fpolicy are found, for tests and unusual set-ups. Options only, no environment: what
/// root runs must not depend on who called it.
struct Locations {
  std::string database;
  std::string socket;
  std::string rules;
  void add_to(CLI::App& app, bool with_store);
};

}  // namespace fpolicy::tools
