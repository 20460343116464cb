// What users of other tools reported, as runs of this program (the numbers are those of the
// reference's field reports). Cases that a lower layer can show are tested there.
#include <sys/resource.h>

#include "libcore/io/safetensors.h"
#include "tests/tools/finetune/fixture.h"

using namespace ds::test;
namespace fs = std::filesystem;

namespace {

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

bool all_zero(const ds::SafetensorsFile& file, const ds::TensorInfo& tensor) {
  const std::byte* data = file.data(tensor);
  for (std::size_t i = 0; i < tensor.end - tensor.begin; ++i) {
    if (data[i] != std::byte{0}) return false;
  }
  return true;
}

std::vector<double> losses(const fs::path& report) {
  std::vector<double> out;
  for (const auto& event : read_events(report)) {
    if (event["schema"] == "deepseek/train-step/1") out.push_back(event["loss"]);
  }
  return out;
}

}  // namespace

TEST_CASE("FR-002: experts alone learn, every one that saw a token") {
  const Fixture f;
  const Outcome run = finetune(f.train("out", {"--lora_target", "experts", "--max_steps", "3",
                                               "--per_device_train_batch_size", "14"}));
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  const auto file = ds::SafetensorsFile::open(f.root() / "out" / "adapter_model.safetensors");
  int matrices = 0;
  for (const ds::TensorInfo& tensor : file.tensors()) {
    if (!has(tensor.name, "lora_B")) continue;
    CHECK(has(tensor.name, ".mlp.experts."));
    // A batch of 150 tokens, two experts each: all eight of both layers are hit.
    CHECK_MESSAGE(!all_zero(file, tensor), tensor.name);
    ++matrices;
  }
  CHECK(matrices == 2 * 8 * 3);
  const auto curve = losses(f.root() / "out" / "report.jsonl");
  CHECK(curve.back() < curve.front());
}

TEST_CASE("FR-007: sigmoid routing trains and its selection bias keeps its bytes") {
  const Fixture f({.bias_centre = -1.0f});
  const Outcome run = finetune(f.train("out", {"--peft_method", "full", "--max_steps", "2"}));
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  const auto before = ds::SafetensorsFile::open(f.root() / "model" / "model.safetensors");
  const auto after = ds::SafetensorsFile::open(f.root() / "out" / "model.safetensors");
  int biases = 0, moved = 0;
  for (const ds::TensorInfo& tensor : before.tensors()) {
    const ds::TensorInfo* other = after.find(tensor.name);
    REQUIRE_MESSAGE(other != nullptr, tensor.name);
    REQUIRE(other->dtype == tensor.dtype);
    const bool same =
        std::memcmp(before.data(tensor), after.data(*other), tensor.end - tensor.begin) == 0;
    if (has(tensor.name, "e_score_correction_bias")) {
      CHECK(same);
      ++biases;
    } else if (!same) {
      ++moved;
    }
  }
  CHECK(biases == 2);
  CHECK(moved > 20);
}

TEST_CASE("FR-009: a softmax router in bf16 trains with a finite, falling loss") {
  const Fixture f({.v2 = true, .q_lora = false});
  const Outcome run =
      finetune(f.train("out", {"--dtype", "bf16", "--lora_target", "all", "--max_steps", "12",
                               "--learning_rate", "5e-3", "--per_device_train_batch_size", "14"}));
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  const auto curve = losses(f.root() / "out" / "report.jsonl");
  REQUIRE(curve.size() == 12);
  CHECK(curve.back() < 0.98 * curve.front());
}

TEST_CASE("FR-030: a folder that cannot be written is known before the first step") {
  const Fixture f;
  write_text(f.root() / "file", "x");
  const Outcome run =
      finetune(f.train("file/out", {"--max_steps", "3", "--report", f.path("steps.jsonl")}));
  CHECK(run.exit_code == 4);
  CHECK(has(run.err, f.path("file")));
  CHECK(losses(f.root() / "steps.jsonl").empty());
}

TEST_CASE("FR-035: a limit on address space is exit 5 with the need") {
#ifdef __SANITIZE_ADDRESS__
  MESSAGE("skipped: the address sanitizer reserves more than any such limit");
  return;
#endif
  const Fixture f;
  const auto limited = [] {
    const rlimit limit{rlim_t{2} << 30, rlim_t{2} << 30};
    ::setrlimit(RLIMIT_AS, &limit);
  };
  // One row of 600,000 tokens needs more than 2 GiB, recomputation or not.
  std::string ids;
  for (int i = 0; i < 600000; ++i) ids += (i == 0 ? "" : ", ") + std::to_string(2 + i % 250);
  write_text(f.root() / "long.jsonl", "{\"input_ids\": [" + ids + "]}\n");
  const Outcome run = finetune(f.train("out", {"--dataset", f.path("long.jsonl"), "--cutoff_len",
                                               "600000", "--max_steps", "1"}),
                               {.in_child = limited});
  CHECK_MESSAGE(run.exit_code == 5, run.err);
  CHECK(has(run.err, "needs"));
  CHECK(has(run.err, "available"));
}
