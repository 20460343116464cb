#include "tests/fuzz/support/check_program.h"

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/cli/run.h"
#include "tests/fuzz/support/input_files.h"
#include "tools/check/check.h"

namespace ds::fuzz {
namespace {

using nlohmann::json;

class Recorder final : public cli::Run {
 public:
  explicit Recorder(std::string format) : format_(std::move(format)) {}

  void info(const std::string& text) override { see(text); }
  void warn(const std::string& text) override { see(text); }
  void progress(const std::string& text, double) override { see(text); }
  void progress_clear() override {}
  void product(const std::string& text, const json& document) override {
    see(text);
    see(document.dump());  // refuses what is not UTF-8
    document_ = document;
  }
  bool json_output() const override { return format_ == "json"; }
  std::string format() const override { return format_; }
  bool color_output() const override { return false; }
  void conclude(ExitCode code) override {
    require(code == ExitCode::kDone || code == ExitCode::kFindings, "the exit code");
  }
  void write_stdout(std::string_view text) override { see(text); }
  void event(const std::string& schema, json fields) override {
    see(fields.dump());
    if (schema != "deepseek/finding/1") return;
    require(fields.at("file").is_string(), "a finding without a file");
    require(!fields.at("message").get<std::string>().empty(), "a finding without words");
  }
  void input(const std::filesystem::path&) override {}
  void open_report(const std::filesystem::path&, bool) override {}
  int threads() const override { return 1; }
  std::string command_line() const override { return "deepseek-check"; }
  std::string version() const override { return "0"; }

  const json& document() const { return document_; }

 private:
  static void see(std::string_view text) {
    require(utf8_error(text) == kUtf8Valid, "text that is not UTF-8");
  }
  std::string format_;
  json document_;
};

// What the program printed as JSON; null when it ended with an Error or printed another form.
json run_once(const check::CheckSettings& settings, const std::string& format) {
  Recorder run(format);
  try {
    check::run_check(settings, run);
    return run.document();
  } catch (const Error& error) {
    require(error.code() == ExitCode::kBadInput || error.code() == ExitCode::kUsage ||
                error.code() == ExitCode::kIo,
            error.what());
    require(error.what()[0] != '\0' && utf8_error(error.what()) == kUtf8Valid,
            "the words of an error");
    return nullptr;
  }
}

}  // namespace

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "promise broken: %s\n", what);
  std::abort();
}

check::CheckSettings settings_of(std::uint8_t bits) {
  check::CheckSettings settings;
  settings.deep = (bits & 1) != 0;
  settings.fix = (bits & 2) != 0;
  settings.compatibility = (bits & 4) != 0;
  if (settings.compatibility) {
    settings.hardware = "8xH100-80G";
    if ((bits & 8) != 0) settings.from = "v3";
    if ((bits & 16) != 0) settings.target = "vllm";
  }
  return settings;
}

const std::filesystem::path& base_model() {
  static const MemoryFolder folder;
  static const bool written = [] {
    folder.hold({{"config.json", read_file(base_folder() / "config.json")}});
    return true;
  }();
  (void)written;
  return folder.path();
}

void run_program(check::CheckSettings settings, std::uint8_t bits) {
  static constexpr const char* kFormats[] = {"json", "text", "junit", "sarif"};
  if (!settings.fix) {
    run_once(settings, kFormats[bits >> 5 & 3]);
    return;
  }
  json document = run_once(settings, "json");
  if (!document.is_object()) return;
  settings.deep = settings.compatibility = false;
  for (std::string* asked : {&settings.hardware, &settings.from, &settings.target}) asked->clear();
  // A new index lets the shards be looked at, whose repairs are a second round.
  constexpr int kRounds = 2;
  for (int round = 0; !document.at("fix").at("written").empty(); ++round) {
    require(round < kRounds, "--fix always has something left to write");
    document = run_once(settings, "json");
    require(document.is_object(), "--fix cannot go on after itself");
  }
}

void run_folder(const std::uint8_t* data, std::size_t size, std::span<const char* const> names,
                Aim aim) {
  static const MemoryFolder folder;
  if (size == 0) return;
  const std::string_view files(reinterpret_cast<const char*>(data) + 1, size - 1);
  folder.hold(split_input(files, names));
  check::CheckSettings settings = settings_of(data[0]);
  aim(settings, folder.path(), data[0]);
  run_program(settings, data[0]);
}

}  // namespace ds::fuzz
