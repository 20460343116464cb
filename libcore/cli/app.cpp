#include "libcore/cli/app.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/hash.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "libcore/cli/console.h"
#include "libcore/cli/settings_source.h"
#include "libcore/cli/version.h"
#include "libcore/report/report.h"
#include "libcore/tensor/backend.h"

namespace ds::cli {

namespace {

struct CommonSettings {
  std::string config;
  bool print_config = false;
  std::string report;
  std::string format = "text";
  std::string device = "auto";
  int threads = 0;
  bool quiet = false;
  std::string log_level = "info";
  std::string progress = "auto";
  std::string color = "auto";
  bool version = false;
  bool version_only = false;
};

const char* const kCommonGroup = "Common options";

void declare_common(CLI::App& app, CommonSettings& s, const std::vector<std::string>& formats) {
  const auto words = [](std::vector<std::string> known) { return CLI::IsMember(std::move(known)); };
  app.add_option("--config", s.config, "YAML or JSON file of settings")->group(kCommonGroup);
  app.add_flag("--print_config", s.print_config, "print every setting and its source, then exit")
      ->group(kCommonGroup);
  app.add_option("--report", s.report, "write the events as JSON lines")->group(kCommonGroup);
  app.add_option("--format", s.format, "form of standard output")
      ->check(words(formats))
      ->capture_default_str()
      ->group(kCommonGroup);
  app.add_option("--device", s.device, "auto, cpu or cuda[:N]")
      ->capture_default_str()
      ->group(kCommonGroup);
  app.add_option("--threads", s.threads, "0: the CPUs this process may use")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str()
      ->group(kCommonGroup);
  app.add_flag("--quiet", s.quiet, "errors only")->group(kCommonGroup);
  app.add_option("--log_level", s.log_level, "words on standard error")
      ->check(words({"error", "warn", "info", "debug"}))
      ->capture_default_str()
      ->group(kCommonGroup);
  app.add_option("--progress", s.progress, "the live line: auto is a terminal only")
      ->check(words({"auto", "always", "never"}))
      ->capture_default_str()
      ->group(kCommonGroup);
  app.add_option("--color", s.color, "auto is a terminal only")
      ->check(words({"auto", "always", "never"}))
      ->capture_default_str()
      ->group(kCommonGroup);
  app.add_flag("--version", s.version, "version and build, then exit")->group(kCommonGroup);
  app.add_flag("--version_only", s.version_only, "the number alone, then exit")
      ->group(kCommonGroup);
}

std::string shell_quoted(const std::string& word) {
  const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || std::strchr("-_=./:,+%@", c) != nullptr;
  });
  if (plain) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// Writes all of `text` to stdout or throws.
void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error(ExitCode::kIo, fmt::format("standard output: {}", std::strerror(errno)));
  }
}

LogLevel level_of(const CommonSettings& s) {
  if (s.quiet || s.log_level == "error") return LogLevel::kError;
  if (s.log_level == "warn") return LogLevel::kWarn;
  return s.log_level == "debug" ? LogLevel::kDebug : LogLevel::kInfo;
}

std::string value_of(const CLI::Option& option) {
  if (option.count() == 0) {
    const std::string text = option.get_default_str();
    return text.empty() && option.get_items_expected_max() == 0 ? "false" : text;
  }
  std::string text;
  for (const std::string& part : option.results()) text += (text.empty() ? "" : ",") + part;
  return text;
}

class RunImpl : public Run {
 public:
  RunImpl(const Program& program, const CommonSettings& common, std::string command_line,
          nlohmann::json config, nlohmann::json sources)
      : program_(program),
        common_(common),
        command_line_(std::move(command_line)),
        config_(std::move(config)),
        sources_(std::move(sources)),
        console_(program.name, {level_of(common), common.progress, common.color}) {
    threads_ = common.threads > 0 ? common.threads : usable_cpus();
    if (common.device.rfind("cuda", 0) == 0) {
      throw Error(ExitCode::kResources,
                  cuda_available()
                      ? "--device cuda: this version computes on the CPU only"
                      : "--device cuda: this build or machine has no usable CUDA device",
                  "use --device cpu");
    }
    if (common.device != "auto" && common.device != "cpu") {
      throw Error(ExitCode::kUsage, fmt::format("--device {} is unknown", common.device),
                  "choose auto, cpu or cuda[:N]");
    }
    if (!common.report.empty()) report_.add_sink(std::make_unique<JsonlSink>(common.report, false));
  }

  void info(const std::string& text) override { console_.say(LogLevel::kInfo, text); }
  void warn(const std::string& text) override { console_.say(LogLevel::kWarn, text); }
  void progress(const std::string& text, double share) override { console_.progress(text, share); }
  void progress_clear() override { console_.clear_progress(); }
  bool json_output() const override { return common_.format == "json"; }
  std::string format() const override { return common_.format; }
  bool color_output() const override {
    return common_.color == "always" || (common_.color == "auto" && ::isatty(STDOUT_FILENO) == 1);
  }
  void conclude(ExitCode code) override { code_ = code; }
  ExitCode code() const { return code_; }
  void product(const std::string& text, const nlohmann::json& json) override {
    console_.clear_progress();
    if (!json_output()) return print(text);
    nlohmann::json document = json;
    name_non_finite(document);
    print(document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  }
  void write_stdout(std::string_view text) override { print(text); }
  void event(const std::string& schema, nlohmann::json fields) override {
    begin();
    report_.event(schema, std::move(fields));
  }
  void input(const std::filesystem::path& path) override {
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    inputs_.push_back(
        {{"path", path.string()}, {"size", error ? 0 : size}, {"sha256", sha256_file(path)}});
  }
  void open_report(const std::filesystem::path& path, bool append) override {
    begin();
    report_.add_sink(std::make_unique<JsonlSink>(path, append));
  }
  int threads() const override { return threads_; }
  std::string command_line() const override { return command_line_; }
  std::string version() const override { return version_number(); }

  Console& console() { return console_; }
  void finish(ExitCode code, const std::string& status) {
    if (!begun_ && common_.report.empty()) return;
    event("deepseek/end/1", {{"status", status},
                             {"exit_code", static_cast<int>(code)},
                             {"seconds", report_.seconds()},
                             {"peak_rss_bytes", peak_resident_bytes()}});
  }

 private:
  // The run line is first in every report; inputs named before the first event are in it.
  void begin() {
    if (begun_) return;
    begun_ = true;
    report_.event(
        "deepseek/run/1",
        {{"tool", program_.name},
         {"version", version_number()},
         {"commit", commit()},
         {"device",
          {{"kind", "cpu"}, {"threads", threads_}, {"instruction_set", instruction_set()}}},
         {"command", command_line_},
         {"config", config_},
         {"sources", sources_},
         {"inputs", inputs_}});
  }

  const Program& program_;
  const CommonSettings& common_;
  std::string command_line_;
  nlohmann::json config_;
  nlohmann::json sources_;
  nlohmann::json inputs_ = nlohmann::json::array();
  Console console_;
  Report report_;
  int threads_ = 1;
  bool begun_ = false;
  ExitCode code_ = ExitCode::kDone;
};

std::string help_text(const Program& program, const CLI::App& app, bool top) {
  std::string text = app.help();
  if (top) {
    text = fmt::format("{}: {}\n\nsubcommands (the first is the default; each has --help):\n",
                       program.name, program.summary);
    for (const Subcommand& sub : program.subcommands) {
      text += fmt::format("  {:<12} {}\n", sub.name, sub.summary);
    }
    text += "\n" + app.help();
  }
  return text;
}

// Everything between argv and the subcommand's execute.
class Invocation {
 public:
  Invocation(int argc, char** argv, const Program& program)
      : program_(program), words_(argv + 1, argv + argc) {
    for (int i = 0; i < argc; ++i) {
      command_line_ += (i == 0 ? "" : " ") + (i == 0 ? program.name : shell_quoted(argv[i]));
    }
  }

  int run() {
    Console plain(program_.name, {});
    try {
      return dispatch();
    } catch (const Error& error) {
      return fail(plain, error.code(), error.what(), error.hint());
    } catch (const std::bad_alloc&) {
      return fail(plain, ExitCode::kResources, "out of memory",
                  "use a smaller batch, a smaller --cutoff_len or a machine with more memory");
    } catch (const CLI::Error& error) {
      return fail(plain, ExitCode::kUsage, error.what(), "--help lists every flag");
    } catch (const std::exception& error) {
      return fail(plain, ExitCode::kInternal, error.what(),
                  "this is a defect of the program: please report it with the command");
    } catch (...) {
      return fail(plain, ExitCode::kInternal, "an exception of unknown type", "");
    }
  }

 private:
  int fail(Console& plain, ExitCode code, const std::string& message, const std::string& hint) {
    Console& console = run_ ? run_->console() : plain;
    console.error(message, hint);
    if (run_) {
      try {
        run_->finish(code, code == ExitCode::kInterrupted ? "interrupted" : "failed");
      } catch (const std::exception&) {
        // The report cannot be written either; the exit code already says that something failed.
      }
    }
    return static_cast<int>(code);
  }

  int dispatch() {
    if (words_.empty()) {
      const std::string usage = fmt::format(
          "usage: {0} [subcommand] --flag value ...\n{0} --help lists everything\n", program_.name);
      std::fputs(usage.c_str(), stderr);
      return static_cast<int>(ExitCode::kUsage);
    }
    const Subcommand* chosen = &program_.subcommands.front();
    bool named = false;
    for (const Subcommand& sub : program_.subcommands) {
      if (words_.front() == sub.name) {
        chosen = &sub;
        named = true;
      }
    }
    if (named) words_.erase(words_.begin());
    if (!named && !program_.bare_words && words_.front()[0] != '-') {
      throw Error(ExitCode::kUsage, fmt::format("subcommand '{}' is unknown", words_.front()),
                  "--help lists the subcommands");
    }
    CLI::App app(fmt::format("{} {}: {}", program_.name, chosen->name, chosen->summary),
                 fmt::format("{} {}", program_.name, chosen->name));
    app.set_help_flag();
    app.get_formatter()->column_width(44);
    bool help = false;
    chosen->declare(app);
    declare_common(app, common_, program_.formats);
    app.add_flag("--help", help, "this text")->group(kCommonGroup);

    for (std::string& word : words_) {
      if (word == "-h") word = "--help";
    }
    GivenSettings given = read_arguments(words_, app);
    if (given.count("help") > 0) {
      print(help_text(program_, app, !named));
      return close_stdout();
    }
    if (given.count("version_only") > 0) {
      print(version_number() + "\n");
      return close_stdout();
    }
    if (given.count("version") > 0) {
      print(version_text(program_.name));
      return close_stdout();
    }
    read_environment(app, given);
    const auto config = given.find("config");
    if (config != given.end()) {
      read_config_file(config->second.value, program_.name, app, given);
    }
    parse(app, given);
    if (common_.print_config) {
      print_settings(app, given);
      return close_stdout();
    }
    nlohmann::json values = nlohmann::json::object();
    nlohmann::json sources = nlohmann::json::object();
    for (const std::string& name : option_names(app)) {
      values[name] = value_of(*app.get_option("--" + name));
      sources[name] = source_of(given, name);
    }
    run_ = std::make_unique<RunImpl>(program_, common_, command_line_, values, sources);
    install_stop_handlers();
    chosen->execute(*run_);
    run_->finish(run_->code(), "done");
    close_stdout();
    return static_cast<int>(run_->code());
  }

  static std::string source_of(const GivenSettings& given, const std::string& name) {
    const auto found = given.find(name);
    return found == given.end() ? "default" : found->second.source;
  }

  static void parse(CLI::App& app, const GivenSettings& given) {
    std::vector<std::string> tokens;
    for (const auto& [name, setting] : given) tokens.push_back("--" + name + "=" + setting.value);
    std::reverse(tokens.begin(), tokens.end());  // CLI11 takes them from the back
    app.parse(tokens);
  }

  void print_settings(const CLI::App& app, const GivenSettings& given) const {
    nlohmann::json json = nlohmann::json::object();
    std::string text;
    for (const std::string& name : option_names(app)) {
      if (name == "help" || name == "version" || name == "version_only" || name == "print_config") {
        continue;
      }
      const std::string value = value_of(*app.get_option("--" + name));
      const std::string source = source_of(given, name);
      json[name] = {{"value", value}, {"source", source}};
      text += fmt::format("{:<34} {:<8} {}\n", name, source, value);
    }
    print(common_.format == "json" ? json.dump(2) + "\n" : text);
  }

  // A full disk behind a redirection shows up here at the latest.
  static int close_stdout() {
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0 || ::close(STDOUT_FILENO) != 0) {
      throw Error(ExitCode::kIo, fmt::format("standard output: {}", std::strerror(errno)));
    }
    return static_cast<int>(ExitCode::kDone);
  }

  const Program& program_;
  std::vector<std::string> words_;
  std::string command_line_;
  CommonSettings common_;
  std::unique_ptr<RunImpl> run_;
};

// A standard stream that is closed at the start would lend its number to the next file opened, and
// words or results would go into that file. Opened for reading, stdout fails when it is written.
void reserve_standard_files() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
    if (::open("/dev/null", fd == STDOUT_FILENO ? O_RDONLY : O_RDWR) != fd) return;
  }
}

// The matrix library takes and returns buffers of a few MiB with every product. By default the C
// library learns from that to keep ever more memory, in a heap of its own for each thread.
void keep_heap_small(int heaps) {
  ::mallopt(M_ARENA_MAX, heaps);
  ::mallopt(M_MMAP_THRESHOLD, 4 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 8 << 20);
}

}  // namespace

int run_main(int argc, char** argv, const Program& program) {
  keep_heap_small(program.heaps);
  reserve_standard_files();
  // A file-size limit shall be a write error with its message, as a full disk is.
  std::signal(SIGXFSZ, SIG_IGN);
  return Invocation(argc, argv, program).run();
}

}  // namespace ds::cli
