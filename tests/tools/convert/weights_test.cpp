// deepseek-convert weights: dtypes, FP8 both ways, the files around them.
#include <cmath>
#include <set>

#include "kernels/types.h"
#include "tests/support/schema.h"
#include "tests/tools/convert/fixture.h"

namespace ds::test {

namespace {

const char* const kFp8Models[] = {"tiny-v3-fp8", "tiny-v3-fp8-ue8m0"};

std::map<std::string, Loaded> fp8_weight(std::int64_t rows, std::int64_t cols, float scale) {
  std::map<std::string, Loaded> tensors;
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  Loaded weight{
      DType::kF8E4M3, {rows, cols}, std::string(static_cast<std::size_t>(rows * cols), 0)};
  for (std::size_t i = 0; i < weight.bytes.size(); ++i)
    weight.bytes[i] = static_cast<char>(i % 127);
  const std::int64_t blocks = (rows + 127) / 128 * ((cols + 127) / 128);
  const std::vector<float> scales(static_cast<std::size_t>(blocks), scale);
  tensors[name] = weight;
  tensors[name + "_scale_inv"] = {
      DType::kF32,
      {(rows + 127) / 128, (cols + 127) / 128},
      std::string(reinterpret_cast<const char*>(scales.data()), scales.size() * sizeof(float))};
  return tensors;
}

}  // namespace

TEST_CASE("weights: FP8 to bf16, f16 and f32 gives the bytes of PyTorch") {
  for (const char* name : kFp8Models) {
    const fs::path model = golden_model(name);
    if (model.empty()) return;
    const auto source = load_folder(model);
    const auto golden = nlohmann::json::parse(read_text(model.parent_path() / "cast_sha256.json"));
    for (const std::string to : {"bf16", "f16", "f32"}) {
      const TempFolder temp;
      converted({"weights", model.string(), temp / "out", "--to", to});
      const auto result = load_folder(temp / "out");
      std::size_t compared = 0;
      for (const auto& [tensor, digests] : golden.items()) {
        REQUIRE_MESSAGE(result.count(tensor) == 1, tensor);
        if (digests.contains(to)) {
          CHECK_MESSAGE(sha256(result.at(tensor).bytes) == digests[to], tensor, " ", to);
          ++compared;
        } else if (to == "bf16" || tensor.ends_with("correction_bias")) {
          CHECK_MESSAGE(result.at(tensor) == source.at(tensor), tensor);
        }
      }
      CHECK(compared == 72);
      CHECK(result.size() == golden.size());
      const auto config = nlohmann::json::parse(read_text(fs::path(temp / "out") / "config.json"));
      CHECK_FALSE(config.contains("quantization_config"));
      CHECK(config["torch_dtype"] == (to == "bf16"  ? "bfloat16"
                                      : to == "f16" ? "float16"
                                                    : "float32"));
      CHECK(config["num_nextn_predict_layers"] == 1);
    }
  }
}

TEST_CASE("weights: FP8 to bf16 and back with the original's scales gives the original's bytes") {
  for (const char* name : kFp8Models) {
    const fs::path model = golden_model(name);
    if (model.empty()) return;
    const TempFolder temp;
    converted({"weights", model.string(), temp / "wide", "--to", "bf16"});
    converted({"weights", temp / "wide", temp / "back", "--to", "fp8", "--reuse_scales_from",
               model.string()});
    CHECK(load_folder(temp / "back") == load_folder(model));
    const auto config = nlohmann::json::parse(read_text(fs::path(temp / "back") / "config.json"));
    const auto original = nlohmann::json::parse(read_text(model / "config.json"));
    CHECK(config["quantization_config"] == original["quantization_config"]);
  }
}

TEST_CASE("weights: --to fp8 quantises the projections and nothing else") {
  const TempFolder temp;
  write_tiny_model(temp / "model", TinyModel{.mtp = true});
  for (const std::string format : {"f32", "ue8m0"}) {
    const std::string out = temp / format;
    converted({"weights", temp / "model", out, "--to", "fp8", "--scale_fmt", format});
    const auto source = load_folder(temp / "model");
    const auto result = load_folder(out);
    std::set<std::string> kinds;
    for (const auto& [name, tensor] : result) {
      if (name.ends_with("_scale_inv")) {
        for (std::size_t i = 0; i < tensor.bytes.size(); i += 4) {
          float scale = 0.0f;
          std::memcpy(&scale, tensor.bytes.data() + i, 4);
          CHECK(scale > 0.0f);
          int exponent = 0;
          if (format == "ue8m0") CHECK(std::frexp(scale, &exponent) == 0.5f);
        }
        continue;
      }
      if (tensor.dtype != DType::kF8E4M3) {
        CHECK_MESSAGE(tensor == source.at(name), name);
        continue;
      }
      CHECK(result.count(name + "_scale_inv") == 1);
      const std::string stem = name.substr(0, name.rfind('.'));
      kinds.insert(stem.substr(stem.rfind('.') + 1));
    }
    CHECK(kinds == std::set<std::string>{"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
                                         "o_proj", "gate_proj", "up_proj", "down_proj"});
    const auto block =
        nlohmann::json::parse(read_text(fs::path(out) / "config.json"))["quantization_config"];
    CHECK(block["quant_method"] == "fp8");
    CHECK(block["weight_block_size"] == nlohmann::json{128, 128});
    CHECK((block.contains("scale_fmt") ? block["scale_fmt"] == "ue8m0" : format == "f32"));
    // What has been quantised once is copied: same scales, same codes.
    converted({"weights", out, temp / ("again-" + format), "--to", "fp8"});
    CHECK(load_folder(temp / ("again-" + format)) == result);
  }
}

TEST_CASE("weights: a scale that is no power of two is requantised for ue8m0, one that is stays") {
  const TempFolder temp;
  for (const float scale : {0.25f, 0.3f}) {
    const std::string in = temp / (scale == 0.25f ? "power" : "other");
    save_folder(in, tiny_config({}), fp8_weight(130, 260, scale));
    converted({"weights", in, in + "-out", "--to", "fp8", "--scale_fmt", "ue8m0"});
    const auto before = load_folder(in), after = load_folder(in + "-out");
    CHECK((before == after) == (scale == 0.25f));
  }
}

TEST_CASE("weights: scales of other dtypes and in another shard") {
  const TempFolder temp;
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  auto tensors = fp8_weight(130, 260, 0.5f);
  save_folder(temp / "f32", tiny_config({}), tensors);
  converted({"weights", temp / "f32", temp / "f32-out", "--to", "f32"});
  const auto want = load_folder(temp / "f32-out");
  Loaded& scale = tensors[name + "_scale_inv"];
  for (const DType dtype : {DType::kBF16, DType::kF8E8M0, DType::kU8}) {
    scale.dtype = dtype;
    scale.bytes.clear();
    for (int i = 0; i < 6; ++i) {
      scale.bytes += dtype == DType::kBF16 ? std::string("\x00\x3f", 2) : std::string("\x7e", 1);
    }
    const std::string in = temp / std::string(dtype_name(dtype));
    save_folder(in, tiny_config({}), tensors);
    converted({"weights", in, in + "-out", "--to", "f32"});
    CHECK(load_folder(in + "-out") == want);
  }
  // The weight in one file, its scale in the other.
  const fs::path split = temp / "split";
  fs::create_directories(split);
  write_text(split / "config.json", tiny_config({}));
  nlohmann::json map;
  int number = 0;
  for (const auto& [tensor, loaded] : fp8_weight(130, 260, 0.5f)) {
    const std::string file = "part" + std::to_string(++number) + ".safetensors";
    write_safetensors(split / file, {{tensor, loaded.dtype, loaded.shape, loaded.bytes.data()}},
                      {});
    map[tensor] = file;
  }
  write_text(split / "model.safetensors.index.json",
             nlohmann::json{{"metadata", nlohmann::json::object()}, {"weight_map", map}}.dump());
  converted({"weights", split.string(), temp / "split-out", "--to", "f32"});
  CHECK(load_folder(temp / "split-out") == want);
}

TEST_CASE("weights: f16 overflow is refused by name and count, or saturates") {
  const TempFolder temp;
  auto tensors = fp8_weight(4, 127, 1000.0f);  // codes 0 .. 126: up to 448,000
  save_folder(temp / "in", tiny_config({}), tensors);
  const Outcome refused = convert({"weights", temp / "in", temp / "out", "--to", "f16"});
  CHECK(refused.exit_code == 3);
  // 2^6 * 1000 = 64,000 fits, 72 * 1000 does not: codes above 0x68 of each row.
  CHECK_MESSAGE(has(refused.err, "model.layers.0.mlp.down_proj.weight: 88 values"), refused.err);
  CHECK(temp.names().size() == 1);
  const Outcome kept = converted({"weights", temp / "in", temp / "out", "--to", "f16",
                                  "--allow_overflow", "--format", "json"});
  CHECK(nlohmann::json::parse(kept.out)["overflowed"] == 88);
  CHECK(has(kept.err, "88 values beyond 65504"));
  const auto result = load_folder(temp / "out");
  const std::string& bytes = result.at("model.layers.0.mlp.down_proj.weight").bytes;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes.data() + i, 2);
    CHECK((bits & 0x7c00U) != 0x7c00U);
  }
}

TEST_CASE("weights: NaN codes stay NaN and are named; a NaN scale is refused") {
  const TempFolder temp;
  auto tensors = fp8_weight(130, 10, 1.0f);
  tensors["model.layers.0.mlp.down_proj.weight"].bytes[1293] = '\x7f';
  save_folder(temp / "code", tiny_config({}), tensors);
  const Outcome noted = converted({"weights", temp / "code", temp / "code-out", "--to", "bf16"});
  CHECK_MESSAGE(has(noted.err,
                    "down_proj.weight: 1 values are NaN or infinite, the first at "
                    "[129, 3]"),
                noted.err);
  tensors["model.layers.0.mlp.down_proj.weight_scale_inv"].bytes.replace(
      4, 4, std::string("\x00\x00\xc0\x7f", 4));
  save_folder(temp / "scale", tiny_config({}), tensors);
  const Outcome refused = convert({"weights", temp / "scale", temp / "scale-out", "--to", "bf16"});
  CHECK(refused.exit_code == 3);
  CHECK_MESSAGE(has(refused.err, "weight_scale_inv at [1, 0] is nan"), refused.err);
  CHECK_FALSE(fs::exists(temp / "scale-out"));
  CHECK_FALSE(fs::exists(temp / "scale-out.partial"));
}

TEST_CASE("weights: an FP8 tensor without its scale, a scale without its weight") {
  const TempFolder temp;
  auto tensors = fp8_weight(130, 10, 1.0f);
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  auto lost = tensors;
  lost.erase(name + "_scale_inv");
  save_folder(temp / "lost", tiny_config({}), lost);
  auto orphan = tensors;
  orphan.erase(name);
  save_folder(temp / "orphan", tiny_config({}), orphan);
  auto wrong = tensors;
  wrong[name + "_scale_inv"].shape = {1, 2};
  save_folder(temp / "wrong", tiny_config({}), wrong);
  for (const std::string to : {"bf16", "fp8", "hf"}) {
    for (const std::string in : {"lost", "orphan", "wrong"}) {
      const Outcome outcome = convert({"weights", temp / in, temp / "out", "--to", to});
      CHECK_MESSAGE(outcome.exit_code == 3, in, " ", to, " ", outcome.err);
      CHECK_MESSAGE(has(outcome.err, name), outcome.err);
      CHECK_FALSE(fs::exists(temp / "out"));
      CHECK_FALSE(fs::exists(temp / "out.partial"));
    }
  }
}

TEST_CASE("weights: shards of a given size, their index, the files around them") {
  const TempFolder temp;
  const fs::path model = temp / "model";
  write_tiny_model(model, TinyModel{.mtp = true});
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "generation_config.json", "modeling_deepseek.py", "LICENSE-MODEL"}) {
    write_text(model / name, std::string("text of ") + name);
  }
  write_text(model / "README.md", "not copied");
  const Outcome outcome =
      converted({"weights", model.string(), temp / "out", "--to", "hf", "--max_shard_size", "60KB",
                 "--report", temp / "report.jsonl", "--format", "json"});
  const fs::path out = temp / "out";
  CHECK(load_folder(out) == load_folder(model));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                           "generation_config.json", "modeling_deepseek.py", "LICENSE-MODEL"}) {
    CHECK(read_text(out / name) == std::string("text of ") + name);
  }
  CHECK_FALSE(fs::exists(out / "README.md"));
  CHECK(nlohmann::json::parse(read_text(out / "config.json")) ==
        nlohmann::json::parse(read_text(model / "config.json")));
  const auto index = nlohmann::json::parse(read_text(out / "model.safetensors.index.json"));
  const Checkpoint checkpoint = Checkpoint::open(out);
  CHECK(checkpoint.warnings().empty());
  CHECK(index["metadata"]["total_size"] == checkpoint.total_bytes());
  REQUIRE(checkpoint.files().size() > 3);
  for (const auto& file : checkpoint.files()) {
    std::uint64_t bytes = 0;
    for (const TensorInfo& tensor : file->tensors()) bytes += tensor.bytes();
    CHECK((bytes <= 60000 || file->tensors().size() == 1));
    CHECK(file->metadata().at("format") == "pt");
  }
  std::size_t shards = 0;
  std::ifstream report(temp / "report.jsonl");
  for (std::string line; std::getline(report, line);) {
    const auto event = nlohmann::json::parse(line);
    shards += event["schema"] == "deepseek/convert-shard/1" ? 1U : 0U;
  }
  CHECK(shards == checkpoint.files().size());
  for (const std::string& problem : validate_report(temp / "report.jsonl")) FAIL_CHECK(problem);
  const auto summary = nlohmann::json::parse(outcome.out);
  CHECK(summary["tensors"] == checkpoint.tensor_count());
  CHECK(summary["bytes_written"] >= checkpoint.total_bytes());
}

TEST_CASE("weights: --mtp drop takes the layers and their count away") {
  const TempFolder temp;
  write_tiny_model(temp / "model", TinyModel{.mtp = true, .layers = 3});
  converted({"weights", temp / "model", temp / "out", "--to", "bf16", "--mtp", "drop"});
  const auto config = nlohmann::json::parse(read_text(fs::path(temp / "out") / "config.json"));
  CHECK(config["num_nextn_predict_layers"] == 0);
  std::size_t kept = 0;
  for (const auto& [name, tensor] : load_folder(temp / "model")) {
    const bool mtp = name.starts_with("model.layers.3.");
    CHECK(load_folder(temp / "out").count(name) == (mtp ? 0U : 1U));
    kept += mtp ? 0U : 1U;
  }
  CHECK(load_folder(temp / "out").size() == kept);
}

TEST_CASE("weights: refusals before anything is written") {
  const TempFolder temp;
  write_tiny_model(temp / "model", {});
  write_tiny_model(temp / "there", {});
  write_tiny_model(temp / "distill", {});
  write_text(fs::path(temp / "distill") / "config.json",
             R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"})");
  write_tiny_model(temp / "cut", {});
  fs::resize_file(fs::path(temp / "cut") / "model.safetensors", 5000);
  struct Case {
    std::vector<std::string> arguments;
    int code;
    std::string part;
  };
  const std::vector<Case> cases{
      {{"weights", temp / "model", temp / "there", "--to", "bf16"}, 2, "--force"},
      {{"weights", temp / "absent", temp / "out", "--to", "bf16"}, 3, "absent"},
      {{"weights", temp / "distill", temp / "out", "--to", "bf16"}, 3, "Qwen2ForCausalLM"},
      {{"weights", temp / "cut", temp / "out", "--to", "bf16"}, 3, "model.safetensors"},
      {{"weights", temp / "model", temp / "no/out", "--to", "bf16"}, 4, "no such folder"},
      {{"weights", temp / "model", temp / "out", "--to", "bf16", "--mp", "2"}, 2, "--mp"},
      {{"weights", temp / "model", temp / "out", "--to", "bf16", "--max_shard_size", "5G"},
       2,
       "--max_shard_size"},
      {{"weights", temp / "model", temp / "out", "--to", "bf16", "--memory_limit", "1MiB"},
       5,
       "--memory_limit"},
      {{"weights", temp / "model", temp / "out"}, 2, "--to"},
      {{"weights", temp / "model", "--to", "bf16"}, 2, "output"},
      {{"weights", temp / "model", temp / "out", "word", "--to", "bf16"}, 2, "word"}};
  const auto before = temp.names().size();
  for (const Case& c : cases) {
    const Outcome outcome = convert(c.arguments);
    CHECK_MESSAGE(outcome.exit_code == c.code, outcome.err);
    CHECK_MESSAGE(has(outcome.err, c.part), outcome.err);
    CHECK(has(outcome.err, "deepseek-convert: error: "));
    CHECK(temp.names().size() == before);
  }
  converted({"weights", temp / "model", temp / "there", "--to", "bf16", "--force"});
  CHECK(load_folder(temp / "there").at("model.norm.weight").dtype == DType::kBF16);
}

TEST_CASE("weights: --dry_run says what it would do and does nothing") {
  const TempFolder temp;
  write_tiny_model(temp / "model", {});
  const Outcome outcome = converted({"weights", temp / "model", temp / "out", "--to", "bf16",
                                     "--max_shard_size", "60KB", "--dry_run", "--format", "json"});
  CHECK(temp.names().size() == 1);
  const auto plan = nlohmann::json::parse(outcome.out);
  converted({"weights", temp / "model", temp / "out", "--to", "bf16", "--max_shard_size", "60KB"});
  std::uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(temp / "out")) bytes += entry.file_size();
  CHECK(plan["bytes_to_write"] == bytes);
  for (const auto& file : plan["files"]) {
    CHECK(fs::file_size(fs::path(temp / "out") / file["file"].get<std::string>()) == file["bytes"]);
  }
}

}  // namespace ds::test
