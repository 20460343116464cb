// deepseek-convert weights --to inference and --to hf.
#include "libcore/config/inference_names.h"
#include "tests/tools/convert/fixture.h"

namespace ds::test {

namespace {

std::string inference(const char* name) {
  const auto out = to_inference_name(name);
  return out ? out->name : "";
}

Loaded slice(const Loaded& whole, std::size_t dim, std::int64_t part, std::int64_t parts) {
  Loaded out = whole;
  out.shape[dim] /= parts;
  const std::int64_t rows = dim == 0 ? 1 : whole.shape[0];
  const std::size_t row = whole.bytes.size() / static_cast<std::size_t>(rows);
  const std::size_t take = row / static_cast<std::size_t>(parts);
  out.bytes.clear();
  for (std::int64_t r = 0; r < rows; ++r) {
    out.bytes += whole.bytes.substr(
        static_cast<std::size_t>(r) * row + static_cast<std::size_t>(part) * take, take);
  }
  return out;
}

// FP8 twins of a tiny model whose sides are multiples of 256 where mp 2 cuts.
void write_fp8_model(const fs::path& folder, std::int64_t intermediate) {
  write_tiny_model(folder, {});
  auto config = nlohmann::json::parse(read_text(folder / "config.json"));
  auto tensors = load_folder(folder);
  const std::string name = "model.layers.0.mlp.";
  const std::int64_t hidden = config["hidden_size"];
  config["intermediate_size"] = intermediate;
  for (const char* kind : {"gate_proj", "up_proj", "down_proj"}) {
    const bool down = std::string(kind) == "down_proj";
    Loaded& weight = tensors[name + kind + ".weight"];
    weight = {DType::kF8E4M3,
              down ? std::vector{hidden, intermediate} : std::vector{intermediate, hidden},
              std::string(static_cast<std::size_t>(hidden * intermediate), '\x38')};
    for (std::size_t i = 0; i < weight.bytes.size(); ++i) {
      weight.bytes[i] = static_cast<char>(i * 7 % 127);
    }
    Loaded& scale = tensors[name + kind + ".weight_scale_inv"];
    scale = {DType::kF32, {(weight.shape[0] + 127) / 128, (weight.shape[1] + 127) / 128}, ""};
    for (std::int64_t i = 0; i < scale.shape[0] * scale.shape[1]; ++i) {
      const float value = 0.5f + static_cast<float>(i);
      scale.bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
  }
  fs::remove_all(folder);
  save_folder(folder, config.dump(2), tensors);
}

}  // namespace

TEST_CASE("inference names: every row of the table, part by part, and back") {
  const std::vector<std::pair<const char*, const char*>> rows{
      {"model.embed_tokens.weight", "embed.weight"},
      {"model.norm.weight", "norm.weight"},
      {"lm_head.weight", "head.weight"},
      {"model.layers.61.input_layernorm.weight", "layers.61.attn_norm.weight"},
      {"model.layers.0.post_attention_layernorm.weight", "layers.0.ffn_norm.weight"},
      {"model.layers.0.self_attn.q_proj.weight", "layers.0.attn.wq.weight"},
      {"model.layers.0.self_attn.q_a_proj.weight_scale_inv", "layers.0.attn.wq_a.scale"},
      {"model.layers.0.self_attn.q_a_layernorm.weight", "layers.0.attn.q_norm.weight"},
      {"model.layers.0.self_attn.q_b_proj.weight", "layers.0.attn.wq_b.weight"},
      {"model.layers.0.self_attn.kv_a_proj_with_mqa.weight", "layers.0.attn.wkv_a.weight"},
      {"model.layers.0.self_attn.kv_a_layernorm.weight", "layers.0.attn.kv_norm.weight"},
      {"model.layers.0.self_attn.kv_b_proj.weight", "layers.0.attn.wkv_b.weight"},
      {"model.layers.0.self_attn.o_proj.weight", "layers.0.attn.wo.weight"},
      {"model.layers.3.mlp.gate.weight", "layers.3.ffn.gate.weight"},
      {"model.layers.3.mlp.gate.e_score_correction_bias", "layers.3.ffn.gate.bias"},
      {"model.layers.0.mlp.gate_proj.weight", "layers.0.ffn.w1.weight"},
      {"model.layers.0.mlp.down_proj.weight", "layers.0.ffn.w2.weight"},
      {"model.layers.0.mlp.up_proj.weight", "layers.0.ffn.w3.weight"},
      {"model.layers.3.mlp.shared_experts.down_proj.weight_scale_inv",
       "layers.3.ffn.shared_experts.w2.scale"},
      {"model.layers.3.mlp.experts.200.gate_proj.weight", "layers.3.ffn.experts.200.w1.weight"}};
  for (const auto& [hf, wanted] : rows) {
    CHECK(inference(hf) == wanted);
    const auto back = to_hf_name(wanted);
    REQUIRE_MESSAGE(back.has_value(), wanted);
    CHECK(back->name == hf);
    CHECK(back->split == to_inference_name(hf)->split);
  }
  CHECK(to_inference_name("model.layers.3.mlp.experts.200.gate_proj.weight")->expert == 200);
  for (const char* unknown :
       {"model.layers.0.self_attn.k_proj.weight", "model.layers.0.mlp.gate_up.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq", "weight", "model.visual.norm.weight",
        "model.layers.3.mlp.gate.bias"}) {
    CHECK_FALSE(to_inference_name(unknown).has_value());
  }
}

TEST_CASE("inference: what each rank gets, and the way back") {
  const TempFolder temp;
  write_tiny_model(temp / "model", TinyModel{.mtp = true});
  converted({"weights", temp / "model", temp / "shards", "--to", "inference", "--mp", "2"});
  const auto source = load_folder(temp / "model");
  const fs::path shards = temp / "shards";
  std::size_t experts = 0;
  for (const int rank : {0, 1}) {
    const fs::path path = shards / ("model" + std::to_string(rank) + "-mp2.safetensors");
    CHECK(SafetensorsFile::open(path).metadata().empty());
    for (const auto& [name, tensor] : load_file(path)) {
      const auto hf = to_hf_name(name);
      REQUIRE_MESSAGE(hf.has_value(), name);
      const Loaded& whole = source.at(hf->name);
      CHECK_FALSE(hf->name.starts_with("model.layers.3."));  // MTP
      switch (hf->split) {
        case InferenceSplit::kExpert:
          ++experts;
          CHECK(hf->expert / 4 == rank);
          CHECK(tensor == whole);
          break;
        case InferenceSplit::kReplicated:
          CHECK(tensor == whole);
          break;
        case InferenceSplit::kRows:
          CHECK_MESSAGE(tensor == slice(whole, 0, rank, 2), name);
          break;
        case InferenceSplit::kCols:
          CHECK_MESSAGE(tensor == slice(whole, 1, rank, 2), name);
          break;
      }
    }
  }
  CHECK(experts == 8 * 3 * 2);
  CHECK(fs::exists(shards / "config.json"));

  converted({"weights", shards.string(), temp / "back", "--to", "hf"});
  auto without_mtp = source;
  std::erase_if(without_mtp,
                [](const auto& item) { return item.first.starts_with("model.layers.3."); });
  CHECK(load_folder(temp / "back") == without_mtp);
  const auto config = nlohmann::json::parse(read_text(fs::path(temp / "back") / "config.json"));
  CHECK(config["num_nextn_predict_layers"] == 0);
}

TEST_CASE("inference: FP8 blocks are never cut; the largest legal number is named") {
  const TempFolder temp;
  write_fp8_model(temp / "whole", 256);
  converted({"weights", temp / "whole", temp / "whole-mp2", "--to", "inference", "--mp", "2"});
  converted({"weights", temp / "whole-mp2", temp / "whole-back", "--to", "hf"});
  CHECK(load_folder(temp / "whole-back") == load_folder(temp / "whole"));
  const auto shard = load_file(fs::path(temp / "whole-mp2") / "model1-mp2.safetensors");
  const auto whole = load_folder(temp / "whole");
  CHECK(shard.at("layers.0.ffn.w1.scale") ==
        slice(whole.at("model.layers.0.mlp.gate_proj.weight_scale_inv"), 0, 1, 2));
  CHECK(shard.at("layers.0.ffn.w2.scale") ==
        slice(whole.at("model.layers.0.mlp.down_proj.weight_scale_inv"), 1, 1, 2));

  // 200 rows and 2 scale rows: the reference gives rows 100 to 127 the wrong scale.
  write_fp8_model(temp / "ragged", 200);
  for (const char* mp : {"2", "4", "3"}) {
    const Outcome outcome =
        convert({"weights", temp / "ragged", temp / "out", "--to", "inference", "--mp", mp});
    CHECK(outcome.exit_code == 3);
    CHECK_MESSAGE(has(outcome.err, "the largest --mp for this checkpoint is 1"), outcome.err);
    if (mp[0] == '2') CHECK_MESSAGE(has(outcome.err, "layers.0.mlp.down_proj.weight"), outcome.err);
    CHECK_FALSE(fs::exists(temp / "out"));
  }
  converted({"weights", temp / "ragged", temp / "mp1", "--to", "inference"});
}

TEST_CASE("inference: shards that do not belong together") {
  const TempFolder temp;
  write_tiny_model(temp / "model", {});
  write_tiny_model(temp / "other", TinyModel{.seed = 2});
  const std::string shards = temp / "shards";
  const auto make = [&] {
    fs::remove_all(shards);
    converted({"weights", temp / "model", shards, "--to", "inference", "--mp", "2"});
  };
  const auto refused = [&](const std::string& part) {
    const Outcome outcome = convert({"weights", shards, temp / "back", "--to", "hf"});
    CHECK_MESSAGE(outcome.exit_code == 3, outcome.err);
    CHECK_MESSAGE(has(outcome.err, part), outcome.err);
    CHECK_FALSE(fs::exists(temp / "back"));
    CHECK_FALSE(fs::exists(temp / "back.partial"));
  };
  make();
  fs::remove(fs::path(shards) / "model0-mp2.safetensors");
  refused("model0-mp2.safetensors is missing");
  make();
  fs::copy_file(fs::path(shards) / "model0-mp2.safetensors",
                fs::path(shards) / "model0-mp4.safetensors");
  refused("2 and of 4 ranks");
  make();
  converted({"weights", temp / "other", temp / "mixed", "--to", "inference", "--mp", "2"});
  fs::copy_file(fs::path(temp / "mixed") / "model1-mp2.safetensors",
                fs::path(shards) / "model1-mp2.safetensors", fs::copy_options::overwrite_existing);
  refused("differs between");
  make();
  fs::remove(fs::path(shards) / "config.json");
  refused("config.json");
  make();
  fs::resize_file(fs::path(shards) / "model1-mp2.safetensors", 3000);
  refused("model1-mp2.safetensors");
}

TEST_CASE("inference: a tensor that the layout has no name for") {
  const TempFolder temp;
  write_tiny_model(temp / "model", {});
  auto tensors = load_folder(temp / "model");
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {DType::kF32, {1}, std::string(4, 0)};
  save_folder(temp / "buffer", tiny_config({}), tensors);
  converted({"weights", temp / "buffer", temp / "out", "--to", "inference"});
  tensors["model.layers.0.adapter.weight"] = {DType::kF32, {1}, std::string(4, 0)};
  save_folder(temp / "unknown", tiny_config({}), tensors);
  const Outcome outcome = convert({"weights", temp / "unknown", temp / "no", "--to", "inference"});
  CHECK(outcome.exit_code == 3);
  CHECK(has(outcome.err, "model.layers.0.adapter.weight"));
  // An expert that config.json does not count would go to no rank at all.
  auto extra = load_folder(temp / "model");
  extra["model.layers.1.mlp.experts.8.up_proj.weight"] =
      extra.at("model.layers.1.mlp.experts.7.up_proj.weight");
  save_folder(temp / "extra", tiny_config({}), extra);
  const Outcome uncounted = convert({"weights", temp / "extra", temp / "no", "--to", "inference"});
  CHECK(uncounted.exit_code == 3);
  CHECK_MESSAGE(has(uncounted.err, "experts.8.up_proj"), uncounted.err);
  // To another dtype it goes as it is.
  converted({"weights", temp / "unknown", temp / "wide", "--to", "hf"});
  CHECK(load_folder(temp / "wide") == tensors);
}

}  // namespace ds::test
