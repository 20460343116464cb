// Answers judged from the prompt's cache, against whole passes over prompt and answer.
#include "libcore/model/choices.h"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>

#include "libcore/base/rng.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"

using namespace ds;
using namespace ds::test;
namespace fs = std::filesystem;

TEST_CASE("choices that share the prompt's pass have the losses of whole passes") {
  const fs::path folder = make_temp_dir("choices");
  for (const bool v2 : {false, true}) {
    write_tiny_model(folder, {.v2 = v2, .q_lora = !v2});
    const ModelConfig config = load_model_config(folder);
    for (const DType dtype : {DType::kF32, DType::kF64}) {
      const auto model = DeepSeekModel::load(config, Checkpoint::open(folder), dtype, 64);
      Device device = Device::cpu(2);
      Arena saved("saved"), scratch("scratch");
      Exec exec{.device = device, .saved = saved, .scratch = scratch, .dtype = dtype};
      const Rng rng(3, 1);
      std::uint64_t draw = 0;
      const auto tokens = [&](int count) {
        std::vector<std::int32_t> ids;
        for (int i = 0; i < count; ++i) {
          ids.push_back(static_cast<std::int32_t>(rng.bits(draw++) % kTinyVocab));
        }
        return ids;
      };
      const std::vector<std::vector<std::int32_t>> prompts{tokens(9), tokens(1), tokens(14)};
      std::vector<std::vector<std::int32_t>> choices{
          tokens(1), tokens(5), tokens(3), {}, tokens(2)};
      choices.push_back(choices[1]);  // begins as another does, and ends elsewhere
      choices.back().back() = 7;
      const auto found = choice_losses(*model, exec, prompts, choices);
      REQUIRE(found.size() == prompts.size());
      double largest = 0.0;
      for (std::size_t p = 0; p < prompts.size(); ++p) {
        REQUIRE(found[p].size() == choices.size());
        for (std::size_t c = 0; c < choices.size(); ++c) {
          Example example{.ids = prompts[p]};
          example.labels.assign(example.ids.size(), kNoTarget);
          example.ids.insert(example.ids.end(), choices[c].begin(), choices[c].end());
          example.labels.insert(example.labels.end(), choices[c].begin(), choices[c].end());
          TokenBatch batch;
          append_segment(batch, example);
          const double expected = model->loss(exec, batch).loss;
          largest = std::max(largest, std::abs(found[p][c] - expected));
          CHECK((found[p][c] == 0.0) == choices[c].empty());
        }
      }
      // Losses of up to five tokens near log(300); a few hundred roundings of f32 logits near 1.
      // (In bf16 another order of rounding may send a token to another expert.)
      CHECK(largest < (dtype == DType::kF64 ? 1e-11 : 2e-5));
      CHECK(saved.used_bytes() == 0);
      CHECK(scratch.used_bytes() == 0);
    }
  }
  fs::remove_all(folder);
}
