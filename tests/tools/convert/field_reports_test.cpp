// What users of other converters ran into (reference/field-reports.md section J).
#include <fcntl.h>
#include <unistd.h>

#include "tests/tools/convert/fixture.h"

namespace ds::test {

namespace {

const std::string kWeight = "model.layers.0.mlp.down_proj.weight";

std::map<std::string, Loaded> f32_weight(std::int64_t rows, std::int64_t cols, bool zero) {
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = zero ? 0.0f : static_cast<float>(static_cast<int>(i * 37 % 211) - 105) * 0.01f;
  }
  if (zero) values[5] = 1.0f;
  return {{kWeight,
           {DType::kF32,
            {rows, cols},
            std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4)}}};
}

std::vector<float> floats(const Loaded& tensor) {
  std::vector<float> values(tensor.bytes.size() / 4);
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

}  // namespace

TEST_CASE("FR-038: two gigabytes in bounded memory, to dtypes and to shards") {
#ifdef __SANITIZE_ADDRESS__
  MESSAGE("skipped: the address sanitizer keeps what was freed");
  return;
#endif
  // A sparse file: 8 tensors of 128 Mi BF16 zeros.
  const TempFolder temp;
  const fs::path model = temp / "model";
  fs::create_directories(model);
  write_text(model / "config.json", tiny_config({}));
  std::vector<TensorToWrite> tensors;
  for (int i = 0; i < 8; ++i) {
    tensors.push_back({"model.layers.0.mlp.experts." + std::to_string(i) + ".up_proj.weight",
                       DType::kBF16,
                       {16384, 8192},
                       nullptr});
  }
  const SafetensorsLayout layout = layout_safetensors("model", tensors, {{"format", "pt"}});
  write_text(model / "model.safetensors", layout.start);
  fs::resize_file(model / "model.safetensors", layout.start.size() + layout.data_bytes);
  constexpr std::uint64_t kLimit = 96U << 20U;
  // What is read is the whole of it; the disk that holds the result is another matter: one shard of
  // two, and one tensor in FP8.
  for (const std::string to : {"inference", "fp8"}) {
    const Outcome outcome = converted({"weights", model.string(), temp / to, "--to", to,
                                       "--memory_limit", "96MiB", "--format", "json", "--quiet"});
    const auto summary = nlohmann::json::parse(outcome.out);
    CHECK(summary["bytes_read"] == layout.data_bytes);
    CHECK(summary["peak_rss_bytes"].get<std::uint64_t>() < kLimit);
    fs::remove_all(temp / to);
  }
}

TEST_CASE("FR-042, FR-043: blocks of 128 x 128, ragged at the edges") {
  const TempFolder temp;
  for (const auto& [rows, cols] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{256, 256}, {576, 256}, {200, 300}}) {
    const std::string in = temp / std::to_string(rows);
    const auto source = f32_weight(rows, cols, false);
    save_folder(in, tiny_config({}), source);
    converted({"weights", in, in + "-fp8", "--to", "fp8"});
    const auto result = load_folder(in + "-fp8");
    CHECK(result.at(kWeight + "_scale_inv").shape ==
          std::vector<std::int64_t>{(rows + 127) / 128, (cols + 127) / 128});
    converted({"weights", in + "-fp8", in + "-f32", "--to", "f32"});
    const std::vector<float> before = floats(source.at(kWeight));
    const std::vector<float> after = floats(load_folder(in + "-f32").at(kWeight));
    REQUIRE(before.size() == after.size());
    for (std::size_t i = 0; i < before.size(); ++i) {
      // Half a step of E4M3 at the value, or of its subnormals.
      const float bound = std::max(std::abs(before[i]) / 16.0f, 1.05f / 448.0f * 0x1p-10f);
      REQUIRE(std::abs(after[i] - before[i]) <= bound * 1.0001f);
    }
  }
}

TEST_CASE("FR-044: a block of zeros") {
  const TempFolder temp;
  save_folder(temp / "in", tiny_config({}), f32_weight(256, 256, true));
  for (const std::string format : {"f32", "ue8m0"}) {
    converted({"weights", temp / "in", temp / format, "--to", "fp8", "--scale_fmt", format});
    converted({"weights", temp / format, temp / (format + "-wide"), "--to", "f32"});
    const auto values = floats(load_folder(temp / (format + "-wide")).at(kWeight));
    for (std::size_t i = 0; i < values.size(); ++i) REQUIRE(std::isfinite(values[i]));
    CHECK(values[6] == 0.0f);
    CHECK(values.back() == 0.0f);
    CHECK(values[5] == doctest::Approx(1.0f).epsilon(0.04));
  }
}

TEST_CASE("FR-045: scales of one byte are written on request and mean the same") {
  const TempFolder temp;
  save_folder(temp / "in", tiny_config({}), f32_weight(200, 300, false));
  const auto to_fp8 = [&](const std::string& in, const std::string& out, const std::string& dtype) {
    converted({"weights", temp / in, temp / out, "--to", "fp8", "--scale_fmt", "ue8m0",
               "--scale_dtype", dtype});
    converted({"weights", temp / out, temp / (out + "-wide"), "--to", "f32"});
  };
  to_fp8("in", "four", "f32");
  to_fp8("in", "one", "e8m0");
  to_fp8("four", "copied", "e8m0");  // the codes are there already
  CHECK(load_folder(temp / "one").at(kWeight + "_scale_inv").dtype == DType::kF8E8M0);
  CHECK(load_folder(temp / "one") == load_folder(temp / "copied"));
  CHECK(load_folder(temp / "one-wide") == load_folder(temp / "four-wide"));
  const Outcome outcome =
      convert({"weights", temp / "in", temp / "no", "--to", "fp8", "--scale_dtype", "e8m0"});
  CHECK(outcome.exit_code == 2);
  CHECK(has(outcome.err, "--scale_fmt ue8m0"));
}

TEST_CASE("FR-046, FR-047: models of another family are named") {
  const TempFolder temp;
  for (const auto& [type, architecture] : std::map<std::string, std::string>{
           {"qwen2", "Qwen2ForCausalLM"}, {"deepseek_v32", "DeepseekV32ForCausalLM"}}) {
    save_folder(temp / type,
                nlohmann::json{{"model_type", type}, {"architectures", {architecture}}}.dump(),
                f32_weight(4, 4, false));
    for (const std::string to : {"bf16", "fp8", "inference", "hf"}) {
      const Outcome outcome = convert({"weights", temp / type, temp / "out", "--to", to});
      CHECK(outcome.exit_code == 3);
      CHECK_MESSAGE(has(outcome.err, architecture), outcome.err);
      CHECK_FALSE(fs::exists(temp / "out"));
    }
  }
}

TEST_CASE("FR-012, FR-051: every tensor that goes in comes out, MTP and unknown ones too") {
  const TempFolder temp;
  write_tiny_model(temp / "model", TinyModel{.mtp = true});
  auto tensors = load_folder(temp / "model");
  tensors["something.of.mine"] = {DType::kI64, {2}, std::string(16, 7)};
  save_folder(temp / "in", read_text(fs::path(temp / "model") / "config.json"), tensors);
  for (const std::string to : {"bf16", "f16", "f32", "hf"}) {
    converted({"weights", temp / "in", temp / to, "--to", to});
    const auto result = load_folder(temp / to);
    CHECK(result.size() == tensors.size());
    CHECK(result.at("something.of.mine") == tensors.at("something.of.mine"));
    for (const auto& [name, tensor] : tensors) {
      if (name.ends_with("e_score_correction_bias")) CHECK(result.at(name) == tensor);
    }
  }
}

}  // namespace ds::test
