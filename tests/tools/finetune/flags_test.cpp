// Flags, configuration, help, and what the man page says about them.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <regex>

#include "tests/support/man_page.h"
#include "tests/tools/finetune/fixture.h"

using namespace ds::test;

namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("usage, help and version") {
  const Outcome none = finetune({});
  CHECK(none.exit_code == 2);
  CHECK(none.out.empty());
  CHECK(has(none.err, "usage: deepseek-finetune"));

  const Outcome help = finetune({"--help"});
  CHECK(help.exit_code == 0);
  CHECK(help.err.empty());
  CHECK(has(help.out, "generate"));
  CHECK(has(help.out, "--stage_steps"));

  CHECK(finetune({"--version_only"}).out == "0.1.0\n");
  const Outcome version = finetune({"--version"});
  CHECK(has(version.out, "oneDNN"));
  CHECK(has(version.out, "instruction set"));
}

TEST_CASE("wrong flags exit 2 and name the nearest") {
  const Outcome flag = finetune({"--modle", "x"});
  CHECK(flag.exit_code == 2);
  CHECK(has(flag.err, "deepseek-finetune: error:"));
  CHECK(has(flag.err, "--model"));
  CHECK(finetune({"trian"}).exit_code == 2);
  CHECK(finetune({"info"}).exit_code == 2);  // --model is required
  const Fixture f;
  CHECK(finetune({"info", "--model", f.path("model"), "--lora_r", "abc"}).exit_code == 2);
  CHECK(finetune({"info", "--model", f.path("model"), "--lora_r", "0"}).exit_code == 2);
  CHECK(finetune({"info", "--model", f.path("model"), "stray"}).exit_code == 2);
  CHECK(finetune({"info", "--model"}).exit_code == 2);
  const Outcome stage = finetune(f.train("out", {"--stage_steps", "10,5"}));
  CHECK(stage.exit_code == 2);
  CHECK(has(stage.err, "cumulative"));
  CHECK(has(finetune(f.train("out", {"--stage_steps", "10,x"})).err, "'x'"));
  CHECK_FALSE(std::filesystem::exists(f.root() / "out"));
}

TEST_CASE("hyphens and underscores, switches with and without a value") {
  const Fixture f;
  for (const std::vector<std::string>& spelling : {std::vector<std::string>{"--lora-r", "6"},
                                                   {"--lora_r=6"},
                                                   {"--lora-r=6", "--use_rslora"},
                                                   {"--lora_r", "6", "--use-rslora", "true"},
                                                   {"--lora_r", "6", "--use_rslora=false"}}) {
    std::vector<std::string> arguments{"info", "--model", f.path("model"), "--format", "json"};
    arguments.insert(arguments.end(), spelling.begin(), spelling.end());
    const Outcome info = finetune(arguments);
    CHECK(info.exit_code == 0);
    CHECK(nlohmann::json::parse(info.out)["lora_r"] == 6);
  }
}

TEST_CASE("settings: default < file < environment < flag") {
  const Fixture f;
  write_text(f.root() / "config.yaml",
             "lora_r: 5\ndeepseek-finetune:\n  lora_alpha: 7\ntraining:\n  memory_optimization:\n"
             "    activation_checkpointing: true\n");
  auto arguments = f.train("out", {"--config", f.path("config.yaml"), "--print_config"});
  const auto first = std::find(arguments.begin(), arguments.end(), "--lora_r");
  arguments.erase(first, first + 2);
  const Outcome file = finetune(arguments);
  CHECK(file.exit_code == 0);
  CHECK(std::regex_search(file.out, std::regex("lora_r +file +5\n")));
  CHECK(std::regex_search(file.out, std::regex("lora_alpha +file +7\n")));
  CHECK(std::regex_search(file.out, std::regex("activation_checkpointing +file +full\n")));
  CHECK(std::regex_search(file.out, std::regex("seed +default +42\n")));
  const Outcome environment = finetune(arguments, {.environment = {{"DEEPSEEK_LORA_R", "9"}}});
  CHECK(std::regex_search(environment.out, std::regex("lora_r +env +9\n")));
  arguments.insert(arguments.end(), {"--lora_r", "3"});
  const Outcome flag = finetune(arguments, {.environment = {{"DEEPSEEK_LORA_R", "9"}}});
  CHECK(std::regex_search(flag.out, std::regex("lora_r +flag +3\n")));

  write_text(f.root() / "wrong.yaml", "lora_rr: 5\n");
  const Outcome wrong = finetune(f.train("out", {"--config", f.path("wrong.yaml")}));
  CHECK(wrong.exit_code == 2);
  CHECK(has(wrong.err, "lora_r"));
  write_text(f.root() / "broken.yaml", "a: [1\n");
  CHECK(finetune(f.train("out", {"--config", f.path("broken.yaml")})).exit_code == 3);
  write_text(f.root() / "deep.yaml", std::string(5000, '['));
  CHECK(finetune(f.train("out", {"--config", f.path("deep.yaml")})).exit_code == 3);
}

TEST_CASE("every flag of --help is in the man page, and the reverse") {
  for (const std::string& problem :
       man_page_problems("deepseek-finetune", {"train", "eval", "generate", "info"})) {
    FAIL_CHECK(problem);
  }
}

TEST_CASE("what cannot be written to stdout is exit 4") {
  const Outcome full = finetune({"--help"}, {.in_child = [] {
                                  const int full_device = ::open("/dev/full", O_WRONLY);
                                  ::dup2(full_device, 1);
                                }});
  CHECK(full.exit_code == 4);
}
