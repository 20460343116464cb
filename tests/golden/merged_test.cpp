// Weights with their adapters added in, and the logits of the merged model, against peft's
// merge_and_unload.
#include "tests/golden/golden_model.h"

using namespace ds;
using namespace ds::test;

namespace {

// The parameter of that name in a model whose weights are all trained.
Parameter& weight_of(DeepSeekModel& model, const std::string& name) {
  for (Parameter* parameter : model.parameters()) {
    if (parameter->name == name) return *parameter;
  }
  FAIL("no parameter " << name);
  return *model.parameters().front();
}

// weight += scaling B A, each sum of r products in f32.
void add_adapter(const LoraSlot& lora, Tensor& weight) {
  const std::int64_t r = lora.a->value.shape()[0];
  const std::int64_t in = lora.a->value.shape()[1];
  const std::int64_t out = lora.b->value.shape()[0];
  const float* a = lora.a->value.as<float>();
  const float* b = lora.b->value.as<float>();
  for (std::int64_t row = 0; row < out; ++row) {
    for (std::int64_t col = 0; col < in; ++col) {
      float sum = 0.0f;
      for (std::int64_t i = 0; i < r; ++i) sum += b[row * r + i] * a[i * in + col];
      weight.as<float>()[row * in + col] += static_cast<float>(lora.scaling) * sum;
    }
  }
}

}  // namespace

TEST_CASE("merged weights and the logits of the merged model") {
  const auto root = goldens();
  if (root.empty()) return;
  for (const std::string name : {"tiny-v3", "tiny-v2-lite", "tiny-v2", "tiny-moonlight"}) {
    CAPTURE(name);
    const auto folder = root / name / "lora" / "all";
    GoldenModel adapted(root / name / name);
    adapted.load_lora(folder);
    GoldenModel merged(root / name / name);
    merged.model->make_all_trainable();
    for (const LoraTarget& target : adapted.targets) {
      const Linear* linear = adapted.model->find_linear(target.module.path);
      REQUIRE(linear != nullptr);
      add_adapter(*linear->lora, weight_of(*merged.model, target.module.path + ".weight").value);
    }

    const auto file = SafetensorsFile::open(folder / "golden.safetensors");
    int samples = 0;
    for (const TensorInfo& info : file.tensors()) {
      const std::string prefix = "merged.model.";
      if (info.name.rfind(prefix, 0) != 0) continue;
      const auto wanted = float_values(file, std::string(info.name));
      const Tensor& ours = weight_of(*merged.model, std::string(info.name.substr(7))).value;
      REQUIRE(static_cast<std::size_t>(ours.bytes()) == wanted.size() * sizeof(float));
      double worst = 0.0;
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        worst = std::max(worst, std::fabs(static_cast<double>(ours.as<float>()[i]) - wanted[i]));
      }
      CAPTURE(info.name);
      CHECK(worst <= 1e-6);
      ++samples;
    }
    CHECK(samples > 0);

    const GoldenBatch ragged =
        read_batch(SafetensorsFile::open(root / name / "forward.safetensors"), "ragged.");
    const auto with_adapter = all_logits(adapted, ragged.batch);
    const auto with_merged = all_logits(merged, ragged.batch);
    double apart = 0.0;
    for (std::size_t i = 0; i < with_merged.size(); ++i) {
      apart = std::max(apart, std::fabs(static_cast<double>(with_merged[i]) - with_adapter[i]));
    }
    MESSAGE(name << ": " << samples << " merged weights, logits of merged and adapter apart by "
                 << apart);
    CHECK(apart <= (name == "tiny-v2" ? 1e-4 : 5e-5));
    if (file.find("merged.ragged.logits") != nullptr) {
      const double d =
          logits_difference(with_merged, float_values(file, "merged.ragged.logits"), ragged.lengths,
                            24, merged.config.vocab_size, ragged.lengths.size());
      MESSAGE(name << ": merged logits differ from peft's by " << d);
      CHECK(d <= 5e-5);
    }
  }
}
