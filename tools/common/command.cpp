// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/command.h"

#include <fpolicy/rules.h>
#include <fpolicy/store.h>
#include <fpolicy/varlink.h>

#include <fmt/format.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <memory>
#include <utility>

namespace fpolicy::tools {
namespace {

/// CLI11's help with the usage lines of man pages in place of its own.
class UsageFormatter : public CLI::Formatter {
 public:
  explicit UsageFormatter(std::vector<std::string> usage) : usage_(std::move(usage)) { column_width(32); }

  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string text;
    if (app->get_parent() != nullptr) return fmt::format("Usage: {} [OPTION...]{}\n", name, arguments(app));
    for (const std::string& line : usage_) {
      text += fmt::format("{} {} {}\n", text.empty() ? "Usage:" : "      ", name, line);
    }
    return text;
  }
  std::string make_positionals(const CLI::App* /*app*/) const override { return {}; }
  std::string make_option_opts(const CLI::Option* option) const override {
    return option->get_type_size() == 0 ? "" : " " + option->get_type_name();
  }

 private:
  static std::string arguments(const CLI::App* app) {
    const auto positional =
        app->get_options([](const CLI::Option* option) { return option->get_positional(); });
    return positional.empty() ? "" : " [" + positional.front()->get_name(true) + "...]";
  }
  std::vector<std::string> usage_;
};

/// CLI11 takes "[a,b]" for a list and "++" for the end of a subcommand. Files may have such names: a byte
/// before them, which wrap() adds and unwrap() takes away, hides them from it.
constexpr char mark = '\x01';

std::string wrap(std::string argument) {
  if (argument == "++" || argument.starts_with('[') || argument.starts_with(mark))
    argument.insert(0, 1, mark);
  return argument;
}

std::string unwrap(std::string argument) {
  if (argument.starts_with(mark)) argument.erase(0, 1);
  return argument;
}

}  // namespace

CLI::Option* add_text(CLI::App& app, const std::string& names, std::string& target, const std::string& type,
                      const std::string& description) {
  auto* option = app.add_option(names, CLI::callback_t([&target](const CLI::results_t& results) {
                                  target = unwrap(results.back());
                                  return true;
                                }),
                                description);
  return option->type_name(type)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

Command::Command(std::string name, const std::string& summary, std::vector<std::string> usage)
    : name_(std::move(name)), usage_(std::move(usage)), app_(summary, name_) {
  app_.formatter(std::make_shared<UsageFormatter>(usage_));
  app_.set_help_flag("-h,--help", "Show this help and exit");
  app_.set_version_flag("-V,--version", fmt::format("{} (fpolicy) {}", name_, FPOLICY_VERSION),
                        "Show the version and exit");
  next_progress_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
}

void Command::add_names(const std::string& label, const std::string& description, CLI::App* to) {
  auto* option = (to != nullptr ? to : &app_)
                     ->add_option(label, CLI::callback_t([this](const CLI::results_t& results) {
                                    for (const std::string& name : results) names_.push_back(unwrap(name));
                                    return true;
                                  }),
                                  description);
  option->expected(0, CLI::detail::expected_max_vector_size)->allow_extra_args();
}

void Command::add_null(CLI::App& to) {
  to.add_flag("-0,--null", null_, "Read names from standard input, each ended by NUL");
}

CLI::Option* Command::add_json() {
  return app_.add_flag("--json", json_, "Print JSON");
}

std::optional<int> Command::parse(int argc, char** argv) {
  // Last first, as CLI11 wants it.
  std::vector<std::string> arguments;
  for (int i = argc - 1; i > 0; --i) arguments.push_back(wrap(argv[i]));
  try {
    app_.parse(std::move(arguments));
  } catch (const CLI::Success& success) {
    app_.exit(success);
    return finish();
  } catch (const CLI::ParseError& error) {
    return usage_error(error.what());
  }
  return std::nullopt;
}

void Command::for_each_name(const std::function<void(const std::string&)>& each) {
  for (const std::string& name : names_) each(name);
  if (!null_) return;
  std::string name;
  bool too_long = false;
  const auto end_name = [&] {
    if (too_long) {
      error(escape_text(name) + "…", Error{ENAMETOOLONG, errno_text(ENAMETOOLONG)});
    } else if (!name.empty()) {
      each(name);
    }
    name.clear();
    too_long = false;
  };
  while (true) {
    const int byte = getc_unlocked(stdin);
    if (byte == EOF) break;
    if (byte == '\0') {
      end_name();
    } else if (name.size() >= PATH_MAX) {
      too_long = true;
    } else {
      name += static_cast<char>(byte);
    }
  }
  if (ferror(stdin) != 0) error("standard input: " + errno_text(errno));
  end_name();
}

int Command::usage_error(const std::string& message) const {
  const std::string text = fmt::format("{0}: {1}\nTry '{0} --help' for more information.\n", name_, message);
  std::fputs(text.c_str(), stderr);
  return wrong_usage;
}

void Command::line(const std::string& text) {
  const std::scoped_lock lock(mutex_);
  clear_progress();
  const std::string whole = fmt::format("{}: {}\n", name_, text);
  std::fwrite(whole.data(), 1, whole.size(), stderr);
}

void Command::error(const std::string& message) {
  ++failures_;
  line(message);
}

void Command::error(std::string_view name, std::string_view path, const Error& error) {
  std::string message = error.message;
  if (const auto at = message.find(fmt::format(" {}: ", path)); !path.empty() && at != std::string::npos) {
    message.erase(at, path.size() + 1);
  }
  if (message.starts_with(fmt::format("{}: ", path))) message.erase(0, path.size() + 2);
  this->error(fmt::format("{}: {}", escape_text(name), message));
}

void Command::note(const std::string& message) {
  line(message);
}

void Command::print(std::string_view output) {
  if (output.empty()) return;
  if (json_ && !std::exchange(printed_, true)) output.remove_prefix(1);
  std::fwrite(output.data(), 1, output.size(), stdout);
}

void Command::progress(const std::function<std::string()>& what) {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_progress_ || isatty(STDERR_FILENO) == 0) return;
  const std::scoped_lock lock(mutex_);
  next_progress_ = now + std::chrono::milliseconds(200);
  // To the line's start, the text, clear to its end.
  const std::string text = fmt::format("\r{}: {}\x1b[K", name_, what());
  std::fwrite(text.data(), 1, text.size(), stderr);
  progress_shown_ = true;
}

void Command::clear_progress() {
  if (progress_shown_) std::fputs("\r\x1b[K", stderr);
  progress_shown_ = false;
}

int Command::finish() {
  {
    const std::scoped_lock lock(mutex_);
    clear_progress();
  }
  // A full disk or a closed pipe behind stdout must not look like success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) error("write error: " + errno_text(errno));
  return failures_ == 0 ? all_well : some_failed;
}

void Locations::add_to(CLI::App& app, bool with_store) {
  database = default_database;
  socket = varlink::default_socket;
  rules = "/etc/fpolicy/rules.d";
  if (with_store) {
    add_text(app, "--database", database, "FILE", "Database to use in place of " + database);
    add_text(app, "--rules", rules, "DIR", "Rules to use in place of " + rules);
  }
  add_text(app, "--socket", socket, "FILE", "policyd's socket in place of " + socket);
}

}  // namespace fpolicy::tools
