// Files, headers, index.
#include "tests/core/check/checkpoint_cases.h"

namespace ds::test {

using nlohmann::json;
namespace fs = std::filesystem;

const std::vector<Case>& container_cases() {
  static const std::vector<Case> kCases{
      {"no-checkpoint", "", [](Model& m) { m.index = false; }, {}},
      {"truncated-file", kShard1, {}, edit_bytes([](std::string& b) { b.resize(b.size() - 2); })},
      {"file-too-short", kShard1, {}, replace_file(kShard1, "abc")},
      {"header-too-long", kShard1, {}, edit_bytes([](std::string& b) { b[5] = '\x7f'; })},
      {"header-not-utf8", kShard1, {}, edit_bytes([](std::string& b) { b[10] = '\xff'; })},
      {"header-syntax", kShard1, {}, edit_bytes([](std::string& b) { b[8] = '['; })},
      {"unknown-dtype", "", {}, edit_header("\"BF16\"", "\"BF17\"")},
      {"bad-metadata", kShard1, {}, edit_header("\"pt\"", "3")},
      {"duplicate-name",
       "lm_head.weight",
       {},
       edit_header("\"lm_head.weight\":",
                   "\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[0],"
                   "\"data_offsets\":[0,0]},\"lm_head.weight\":")},
      {"offsets-reversed",
       "a",
       {},
       entry(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4)},
      {"hole-in-data",
       "b",
       {},
       entry(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]})",
             12)},
      {"overlapping-tensors",
       "b",
       {},
       entry(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
             R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]})",
             12)},
      {"size-overflow",
       "a",
       {},
       entry(R"("a":{"dtype":"F32","shape":[4611686018427387904,16],"data_offsets":[0,4]})", 4)},
      {"partial-bytes",
       "a",
       {},
       entry(R"("a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]})", 2)},
      {"size-mismatch",
       "a",
       {},
       entry(R"("a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]})", 4)},
      {"trailing-bytes", kShard1, {}, edit_bytes([](std::string& b) { b += "xy"; })},
      {"index-syntax",
       kIndex,
       {},
       edit_bytes([](std::string& b) { b.resize(b.size() / 2); }, kIndex)},
      {"index-without-map", kIndex, {}, replace_file(kIndex, "{\"metadata\":{}}")},
      {"index-duplicate",
       kIndex,
       {},
       replace_file(kIndex, R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})")},
      {"unsafe-shard-name", kIndex, [](Model& m) { m.map[kQ] = "../model.safetensors"; }, {}},
      {"missing-shard", kShard2, {}, [](const fs::path& f) { fs::remove(f / kShard2); }},
      {"stale-index",
       kIndex,
       {},
       [](const fs::path& f) { fs::rename(f / kShard2, f / "other.safetensors"); }},
      {"tensor-not-in-shard", kQ, [](Model& m) { m.map[kQ] = kShard2; }, {}},
      {"tensor-not-in-index", kQ, [](Model& m) { m.map[kQ] = ""; }, {}},
      {"duplicate-tensor",
       "lm_head.weight",
       {},
       [](const fs::path& f) {
         Model other;
         other.set("lm_head.weight", "BF16", {300, 64}, "extra.safetensors");
         other.set("x", "BF16", {1}, "extra.safetensors");
         other.index = false;
         other.write(f / "other");
         fs::rename(f / "other" / "extra.safetensors", f / "extra.safetensors");
         json index = json::parse(read_text(f / kIndex));
         index["weight_map"]["x"] = "extra.safetensors";
         write_text(f / kIndex, index.dump());
       }},
      {"wrong-total-size",
       kIndex,
       [](Model& m) {
         m.index_metadata = {{"total_size", 17}};
       },
       {}},
      {"stray-file",
       "other.safetensors",
       {},
       [](const fs::path& f) { fs::copy(f / kShard2, f / "other.safetensors"); }},
      {"metadata-format", "format", [](Model& m) { m.metadata = nullptr; }, {}},
      {"metadata-format",
       "format",
       [](Model& m) {
         m.metadata = {{"format", "tf"}};
       },
       {}},
      {"no-total-size", "total_size", [](Model& m) { m.index_metadata = json::object(); }, {}},
      {"shard-count",
       kIndex,
       [](Model& m) {
         for (auto& [name, tensor] : m.tensors) tensor.shard = kShard1;
       },
       {}},
      {"misaligned-tensor",
       "a",
       {},
       entry(
           R"("__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
           R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]})",
           5)},
      {"lfs-pointer",
       kShard1,
       {},
       replace_file(kShard1,
                    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")},
      {"lfs-pointer",
       "tokenizer.json",
       {},
       replace_file("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n")},
      {"web-page", kShard1, {}, replace_file(kShard1, "<!DOCTYPE html><html></html>")},
      {"wrong-container", kShard1, {}, replace_file(kShard1, "PK\x03\x04 and so on and on")},
      {"partial-download", "x.incomplete", {}, replace_file("x.incomplete", "")},
      {"pickle-weights", "pytorch_model.bin", {}, replace_file("pytorch_model.bin", "")},
      {"dangling-link",
       kShard2,
       {},
       [](const fs::path& f) {
         fs::remove(f / kShard2);
         fs::create_symlink("../nowhere", f / kShard2);
       }},
      {"empty-tensor",
       kQ,
       [](Model& m) {
         m.set(kQ, "F8_E4M3", {0, 32});
       },
       {}},
      {"odd-name",
       "model.layers.1.mlp.gate.weight\u200b",
       [](Model& m) {
         m.set("model.layers.1.mlp.gate.weight\u200b", "BF16", {8, 64});
       },
       {}},
      {"empty-shard",
       "third.safetensors",
       {},
       [](const fs::path& f) {
         write_text(f / "third.safetensors",
                    Model::file_bytes(R"({"__metadata__":{"format":"pt"}})", ""));
         json index = json::parse(read_text(f / kIndex));
         index["weight_map"]["x"] = "third.safetensors";
         write_text(f / kIndex, index.dump());
       }},
  };
  return kCases;
}

}  // namespace ds::test
