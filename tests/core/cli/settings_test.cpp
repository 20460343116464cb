#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "libcore/base/error.h"
#include "libcore/cli/settings_source.h"

using namespace ds;       // NOLINT
using namespace ds::cli;  // NOLINT

namespace {

bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

// The flags of a small program.
struct Flags {
  CLI::App app;
  std::string rate, stages, pattern, checkpointing, threshold, config;
  bool packing = false;
  bool version = false;
  Flags() {
    app.set_help_flag();
    app.add_option("--learning_rate", rate);
    app.add_flag("--packing", packing);
    app.add_option("--stage_steps", stages);
    app.add_option("--rank_pattern", pattern);
    app.add_option("--activation_checkpointing", checkpointing);
    app.add_option("--selective_computation_threshold", threshold);
    app.add_option("--config", config);
    app.add_flag("--version", version);
  }
  GivenSettings file(const std::string& text, GivenSettings before = {}) {
    read_config_text(text, "f.yaml", "deepseek-finetune", app, before);
    return before;
  }
  std::string refusal(const std::string& text, ExitCode code) {
    try {
      file(text);
    } catch (const Error& error) {
      CHECK(error.code() == code);
      return std::string(error.what()) + " | " + error.hint();
    }
    return "";
  }
};

}  // namespace

TEST_CASE("arguments: both spellings, values after a space or an equals sign, switches") {
  Flags flags;
  const GivenSettings given = read_arguments(
      {"--learning-rate", "-1", "--stage_steps=a=b-c", "--packing", "--rank-pattern", "--x"},
      flags.app);
  CHECK(given.at("learning_rate").value == "-1");
  CHECK(given.at("stage_steps").value == "a=b-c");  // the value keeps its hyphens and signs
  CHECK(given.at("packing").value == "true");
  CHECK(given.at("rank_pattern").value == "--x");
  CHECK(given.at("packing").source == "flag");
  for (const char* word : {"true", "false", "0", "on"}) {
    CHECK(read_arguments({"--packing", word}, flags.app).at("packing").value == word);
  }
  for (const std::vector<std::string>& wrong : {std::vector<std::string>{"--packing", "maybe"},
                                                {"word"},
                                                {"--"},
                                                {"-x"},
                                                {"--stage_steps"},
                                                {"--=3"},
                                                {"--stage_stepz", "1"}}) {
    try {
      read_arguments(wrong, flags.app);
      CHECK_MESSAGE(false, wrong.front());
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kUsage);
      if (wrong.front() == "--stage_stepz") CHECK(has(error.hint(), "--stage_steps"));
    }
  }
}

TEST_CASE("words without dashes go to the options that have a place") {
  CLI::App app;
  app.set_help_flag();
  std::string in, out;
  std::vector<std::string> rest;
  app.add_option("--in,in", in);
  app.add_option("--out,out", out);
  app.add_option("--rest,rest", rest)->delimiter('\n');
  app.add_flag("--force");
  const GivenSettings given = read_arguments({"a", "--force", "-", "x,1", "y"}, app);
  CHECK(given.at("in").value == "a");
  CHECK(given.at("out").value == "-");
  CHECK(given.at("rest").value == "x,1\ny");
  CHECK(given.at("force").value == "true");
  const GivenSettings mixed = read_arguments({"--in", "a", "b", "--rest=c"}, app);
  CHECK(mixed.at("in").value == "a");
  CHECK(mixed.at("out").value == "b");
  GivenSettings listed;
  read_config_text("rest: [u, v]\n", "f.yaml", "p", app, listed);
  CHECK(listed.at("rest").value == "u\nv");
  CHECK_THROWS_AS(read_arguments({"a", "b", "-x"}, app), Error);
}

TEST_CASE("a repeated flag counts last, unless its values are given one by one") {
  CLI::App app;
  app.set_help_flag();
  std::vector<std::string> files, gates;
  app.add_option("--files", files)->delimiter(',');
  app.add_option("--gate", gates)->delimiter('\n');
  const GivenSettings given = read_arguments(
      {"--files", "a,b", "--gate", "x<=1", "y<=2", "--files", "c", "--gate=z<=3,4"}, app);
  CHECK(given.at("files").value == "c");
  CHECK(given.at("gate").value == "x<=1\ny<=2\nz<=3,4");
}

TEST_CASE("a file's keys: flat, under the program, under training, dotted, JSON") {
  Flags flags;
  for (const char* text :
       {"learning_rate: 0.5\nstage-steps: [10, 20]\npacking: true\n",
        "deepseek-finetune:\n  learning_rate: 0.5\n  stage_steps: \"10,20\"\n  packing: true\n",
        "training:\n  learning_rate: 0.5\n  stage_steps: 10,20\npacking: true\n",
        "deepseek-finetune.learning_rate: 0.5\ntraining.stage_steps: 10,20\npacking: true\n",
        "{\n\t\"learning_rate\": 0.5,\n\t\"stage_steps\": [10, 20],\n\t\"packing\": true\n}\n"}) {
    CAPTURE(text);
    const GivenSettings given = flags.file(text);
    CHECK(given.size() == 3);
    CHECK(given.at("learning_rate").value == "0.5");
    CHECK(given.at("stage_steps").value == "10,20");
    CHECK(given.at("packing").value == "true");
    CHECK(given.at("packing").source == "file");
  }
  CHECK(flags.file("").empty());
  CHECK(flags.file("# only words\n").empty());
  CHECK(flags.file("learning_rate:\npacking: null\ndeepseek-finetune:\n").empty());
  CHECK(flags.file("rank_pattern: {z.*: 4, a: 2, s: '7', t: x}").at("rank_pattern").value ==
        R"({"z.*":4,"a":2,"s":"7","t":"x"})");
}

TEST_CASE("the developer guide's block") {
  Flags flags;
  for (const char* text :
       {"training:\n  memory_optimization:\n    activation_checkpointing: true\n"
        "    selective_computation:\n      threshold: 0.7\n",
        "training.memory_optimization.activation_checkpointing: true\n"
        "training.memory_optimization.selective_computation.threshold: 0.7\n",
        "deepseek-finetune:\n  training:\n    memory_optimization:\n"
        "      activation_checkpointing: true\n      selective_computation.threshold: 0.7\n"}) {
    CAPTURE(text);
    const GivenSettings given = flags.file(text);
    CHECK(given.size() == 2);
    CHECK(given.at("activation_checkpointing").value == "full");
    CHECK(given.at("selective_computation_threshold").value == "0.7");
  }
  const std::string start = "training:\n  memory_optimization:\n    ";
  CHECK(
      flags.file(start + "activation_checkpointing: false").at("activation_checkpointing").value ==
      "none");
  CHECK(has(flags.refusal("training:\n  memory_optimization: 5\n", ExitCode::kBadInput),
            "training.memory_optimization"));
  CHECK(has(flags.refusal(start + "offload: true", ExitCode::kUsage), "offload"));
  CHECK(has(flags.refusal(start + "selective_computation: {thresold: 1}", ExitCode::kUsage),
            "thresold"));
}

TEST_CASE("wrong files are refused") {
  Flags flags;
  const std::string key = flags.refusal("learning_rat: 1", ExitCode::kUsage);
  CHECK(has(key, "learning_rat"));
  CHECK(has(key, "--learning_rate"));
  CHECK(has(flags.refusal("packing: 1\npacking: 0\n", ExitCode::kUsage), "twice"));
  CHECK(has(flags.refusal("packing: 1\ndeepseek-finetune: {packing: 0}\n", ExitCode::kUsage),
            "twice"));
  CHECK(has(flags.refusal("stage_steps: [[1]]", ExitCode::kUsage), "nested"));
  CHECK(flags.refusal("config: other.yaml", ExitCode::kUsage) != "");
  CHECK(flags.refusal("version: true", ExitCode::kUsage) != "");
  for (const char* text : {"- 1\n- 2\n", "just words", "a: [1\nb: }", "{}: 1", "a: *nowhere"}) {
    CAPTURE(text);
    CHECK(has(flags.refusal(text, ExitCode::kBadInput), "f.yaml"));
  }
  CHECK(has(flags.refusal(std::string((1 << 20) + 1, ' '), ExitCode::kBadInput), "bytes"));
  for (const char* part : {"[", "{a: ", "? ", "- "}) {
    std::string deep;
    while (deep.size() < 500000) deep += part;
    CHECK(flags.refusal("learning_rate: " + deep, ExitCode::kBadInput) != "");
    CHECK(flags.refusal(deep, ExitCode::kBadInput) != "");
  }
}

TEST_CASE("the order of sources: flag, environment, file") {
  Flags flags;
  ::setenv("DEEPSEEK_LEARNING_RATE", "2", 1);
  ::setenv("DEEPSEEK_PACKING", "false", 1);
  ::setenv("DEEPSEEK_VERSION", "1.2.3", 1);  // someone else's variable: no switch of ours
  GivenSettings given = read_arguments({"--learning_rate", "3"}, flags.app);
  read_environment(flags.app, given);
  given = flags.file("learning_rate: 1\npacking: true\nstage_steps: 5\n", given);
  CHECK(given.at("learning_rate").value == "3");
  CHECK(given.at("learning_rate").source == "flag");
  CHECK(given.at("packing").value == "false");
  CHECK(given.at("packing").source == "env");
  CHECK(given.at("stage_steps").source == "file");
  CHECK(given.count("version") == 0);
  for (const char* name : {"DEEPSEEK_LEARNING_RATE", "DEEPSEEK_PACKING", "DEEPSEEK_VERSION"}) {
    ::unsetenv(name);
  }
}
