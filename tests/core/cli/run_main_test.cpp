// run_main in a child process, so that its streams and its exit are real.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <new>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "libcore/base/error.h"
#include "libcore/cli/app.h"
#include "tests/support/paths.h"
#include "tests/support/schema.h"

using namespace ds;       // NOLINT
using namespace ds::cli;  // NOLINT

namespace {

namespace fs = std::filesystem;

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string content(const fs::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

class Harness {
 public:
  Harness() : folder_(test::make_temp_dir("run-main")) {}
  ~Harness() { fs::remove_all(folder_); }
  fs::path path(const char* name) const { return folder_ / name; }

  // `prepare` runs in the child after its streams were redirected to files.
  Outcome run(std::vector<std::string> arguments, const std::function<void(Run&)>& body = {},
              const std::function<void()>& prepare = {}) {
    const fs::path out = path("out");
    const fs::path err = path("err");
    std::cout.flush();  // or the child would print it once more
    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
      ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
      if (prepare) prepare();
      arguments.insert(arguments.begin(), "deepseek-probe");
      std::vector<char*> argv;
      for (std::string& argument : arguments) argv.push_back(argument.data());
      double rate = 0.25;
      const auto declare = [&](CLI::App& app) {
        app.add_option("--rate", rate)->capture_default_str();
      };
      const auto execute = [&](Run& run) {
        if (body) body(run);
      };
      const Program program{.name = "deepseek-probe",
                            .summary = "tests the command line",
                            .subcommands = {{"go", "goes", declare, execute}}};
      ::_exit(run_main(static_cast<int>(argv.size()), argv.data(), program));
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return {code, content(out), content(err)};
  }

 private:
  fs::path folder_;
};

}  // namespace

TEST_CASE("every exception becomes its exit code, said on stderr") {
  Harness harness;
  const auto code_of = [&](const std::function<void()>& thrower) {
    const Outcome outcome = harness.run({"go"}, [&](Run&) { thrower(); });
    CHECK(has(outcome.err, "deepseek-probe: error: "));
    CHECK(outcome.out.empty());
    return outcome.code;
  };
  CHECK(code_of([] { throw Error(ExitCode::kFindings, "x"); }) == 1);
  CHECK(code_of([] { throw Error(ExitCode::kUsage, "x"); }) == 2);
  CHECK(code_of([] { throw Error(ExitCode::kBadInput, "x"); }) == 3);
  CHECK(code_of([] { throw Error(ExitCode::kIo, "x"); }) == 4);
  CHECK(code_of([] { throw Error(ExitCode::kInterrupted, "x"); }) == 130);
  CHECK(code_of([] { throw std::bad_alloc(); }) == 5);
  CHECK(code_of([] { throw std::invalid_argument("gemm: x"); }) == 6);
  CHECK(code_of([] { throw 7; }) == 6);
  const Outcome hint = harness.run(
      {"go"}, [](Run&) { throw Error(ExitCode::kBadInput, "the file is wrong", "mend it"); });
  CHECK(hint.err == "deepseek-probe: error: the file is wrong\n  mend it\n");
}

TEST_CASE("usage, help, version, settings") {
  Harness harness;
  const Outcome none = harness.run({});
  CHECK(none.code == 2);
  CHECK(none.out.empty());
  CHECK(has(none.err, "usage: deepseek-probe"));
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"--help"}, {"go", "--help"}, {"-h"}}) {
    const Outcome help = harness.run(words);
    CHECK(help.code == 0);
    CHECK(help.err.empty());
    CHECK(has(help.out, "--rate"));
  }
  const Outcome version = harness.run({"--version"});
  for (const char* part : {"commit", "compiler", "CUDA", "instruction set", "matrix library"}) {
    CHECK(has(version.out, part));
  }
  CHECK(harness.run({"--rate", "x"}).code == 2);
  CHECK(harness.run({"--device", "tpu"}).code == 2);
  CHECK(harness.run({"--threads", "-1"}).code == 2);
  CHECK(harness.run({"--format", "xml"}).code == 2);
  std::ofstream(harness.path("c.yaml")) << "deepseek-probe: {rate: 0.5}\n";
  const Outcome json = harness.run(
      {"--config", harness.path("c.yaml").string(), "--format", "json", "--print-config"});
  const auto settings = nlohmann::json::parse(json.out);
  CHECK(settings["rate"] == nlohmann::json({{"source", "file"}, {"value", "0.5"}}));
  CHECK(settings["format"]["source"] == "flag");
  CHECK(settings["color"]["source"] == "default");
  CHECK(has(harness.run({"--rate", "2", "--print_config"}).out,
            "rate                               flag     2\n"));
}

TEST_CASE("streams: product on stdout, words on stderr, events in the report") {
  Harness harness;
  const auto body = [](Run& run) {
    run.info("some words");
    run.warn("careful");
    run.progress("step 1", 0.5);
    run.product("the product\n", {{"value", std::nan("")}, {"n", 1}});
  };
  const fs::path report = harness.path("report.jsonl");
  const Outcome text = harness.run({"go", "--report", report.string()}, body);
  CHECK(text.code == 0);
  CHECK(text.out == "the product\n");
  CHECK(text.err == "some words\nwarning: careful\n");  // no live line in a file
  CHECK(test::validate_report(report) == std::vector<std::string>{});
  CHECK(has(content(report), "deepseek/run/1"));
  CHECK(has(content(report), "\"status\":\"done\""));
  const Outcome json = harness.run({"--format", "json", "--quiet"}, body);
  CHECK(json.err.empty());
  CHECK(nlohmann::json::parse(json.out) ==
        nlohmann::json{
            {"n", 1}, {"value", nullptr}, {"nonfinite", nlohmann::json::array({"value"})}});
  CHECK(has(harness.run({"--progress", "always"}, body).err, "[##########..........] step 1"));
  const auto bad = [](Run&) { throw Error(ExitCode::kBadInput, "bad"); };
  CHECK(harness.run({"--report", report.string()}, bad).code == 3);
  CHECK(has(content(report), "\"exit_code\":3"));
  CHECK(test::validate_report(report) == std::vector<std::string>{});
  CHECK(harness.run({"--report", harness.path("no/such/report").string()}).code == 4);
}

TEST_CASE("closed and full standard streams") {
  Harness harness;
  const auto body = [](Run& run) {
    run.info("words");
    run.product("product\n", {});
  };
  const auto on_full_disk = [](int fd) { ::dup2(::open("/dev/full", O_WRONLY), fd); };
  CHECK(harness.run({"go"}, body, [&] { on_full_disk(1); }).code == 4);
  CHECK(harness.run({"go"}, body, [] { ::close(1); }).code == 4);
  // Nobody reads the words: no reason to stop.
  CHECK(harness.run({"go"}, body, [&] { on_full_disk(2); }).code == 0);
  const fs::path report = harness.path("report.jsonl");
  const auto close_two = [] {
    ::close(0);
    ::close(2);
  };
  const Outcome closed = harness.run({"--report", report.string()}, body, close_two);
  CHECK(closed.code == 0);
  CHECK(closed.out == "product\n");
  CHECK_FALSE(has(content(report), "words\n"));
  CHECK(test::validate_report(report) == std::vector<std::string>{});
}
