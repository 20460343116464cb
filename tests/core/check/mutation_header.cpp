// A shard's bytes, and every field of its header.
#include <fmt/format.h>

#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

using nlohmann::ordered_json;

struct Shard {
  std::string name;
  ordered_json header;
  std::string data;
};

Shard read_shard(const std::filesystem::path& folder, const std::string& name) {
  const std::string bytes = read_text(folder / name);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  return {name, ordered_json::parse(bytes.substr(8, length)), bytes.substr(8 + length)};
}

std::string bytes_of(const ordered_json& header, const std::string& data) {
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return Model::file_bytes(text, data);
}

// What a single entry of a header may be turned into.
std::vector<std::pair<std::string, ordered_json>> entry_changes(const ordered_json& entry) {
  std::vector<std::pair<std::string, ordered_json>> changes;
  const auto set = [&](const std::string& field, const std::string& what, ordered_json value) {
    ordered_json changed = entry;
    changed[field] = std::move(value);
    if (changed != entry) changes.emplace_back(field + ": " + what, changed);
  };
  for (const char* field : {"dtype", "shape", "data_offsets"}) {
    ordered_json without = entry;
    without.erase(field);
    changes.emplace_back(std::string(field) + ": removed", without);
    set(field, "null", nullptr);
    set(field, "text", "x");
    set(field, "number", 7);
    set(field, "object", ordered_json::object());
  }
  for (int i = 0; i < kernels::kDTypeCount; ++i) {
    const std::string name(kernels::dtype_name(static_cast<kernels::DType>(i)));
    set("dtype", name, name);
  }
  set("dtype", "bfloat16", "bfloat16");
  set("dtype", "list", {entry["dtype"]});
  const auto shape = entry["shape"].get<std::vector<std::int64_t>>();
  for (std::size_t i = 0; i < shape.size(); ++i) {
    const auto extent = [&](const char* what, const ordered_json& value) {
      ordered_json changed = entry["shape"];
      changed[i] = value;
      set("shape", fmt::format("extent {} {}", i, what), changed);
    };
    extent("one more", shape[i] + 1);
    extent("one less", shape[i] - 1);
    extent("negative", -shape[i]);
    extent("fraction", 0.5);
    extent("text", "x");
    extent("huge", std::int64_t{1} << 62);
  }
  set("shape", "turned", std::vector<std::int64_t>(shape.rbegin(), shape.rend()));
  set("shape", "scalar", ordered_json::array());
  ordered_json longer = shape;
  longer.push_back(1);
  set("shape", "one axis more", longer);
  if (shape.size() == 2) set("shape", "flat", {shape[0] * shape[1]});
  if (shape.size() == 2 && shape[0] % 2 == 0) set("shape", "halved", {shape[0] / 2, 2 * shape[1]});
  const auto at = entry["data_offsets"].get<std::vector<std::int64_t>>();
  set("data_offsets", "begin one more", {at[0] + 1, at[1]});
  set("data_offsets", "end one more", {at[0], at[1] + 1});
  set("data_offsets", "end one less", {at[0], at[1] - 1});
  set("data_offsets", "both one more", {at[0] + 1, at[1] + 1});
  set("data_offsets", "exchanged", {at[1], at[0]});
  set("data_offsets", "negative", {-1, at[1]});
  set("data_offsets", "one only", {at[0]});
  set("data_offsets", "three", {at[0], at[1], at[1]});
  set("data_offsets", "fraction", {at[0], 0.5});
  set("data_offsets", "past the end", {at[0] + (1 << 30), at[1] + (1 << 30)});
  set("data_offsets", "huge", {at[0], std::int64_t{1} << 62});
  ordered_json extra = entry;
  extra["extra"] = 1;
  changes.emplace_back("extra field", extra);
  changes.emplace_back("null", nullptr);
  changes.emplace_back("number", 7);
  changes.emplace_back("list", ordered_json::array({entry}));
  return changes;
}

}  // namespace

MutationGroup file_mutations() {
  const auto folder = model_folder(sound_model());
  MutationGroup group{"file", "length, borders and bytes of a shard", folder->sound(), {}, {}, {}};
  const std::string bytes = read_text(folder->root() / kShard1);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  const auto add = [&](const std::string& subject, const std::string& change, std::string spoilt) {
    group.mutations.push_back({subject, change, {kShard1, "", ""}, [folder, spoilt] {
                                 return folder->with(kShard1, spoilt);
                               }});
  };
  const auto set = [&](std::size_t at, char value) {
    std::string spoilt = bytes;
    spoilt[at] = value;
    return spoilt;
  };
  for (std::size_t i = 0; i < 8; ++i) {
    const auto byte = static_cast<unsigned char>(bytes[i]);
    for (const int value : {0, 1, 0x7f, 0xff, byte + 1, byte - 1}) {
      if ((value & 0xff) == byte) continue;
      const std::string spoilt = set(i, static_cast<char>(value));
      std::uint64_t said = 0;
      std::memcpy(&said, spoilt.data(), 8);
      const char* change = said > 100'000'000        ? "beyond 100 MB"
                           : 8 + said > bytes.size() ? "past the end of the file"
                           : said == length + 1      ? "one byte into the data"
                           : said > length           ? "into the data"
                           : said > 0 && said < 32   ? "inside the metadata"
                           : bytes[7 + length] == ' ' && said + 1 == length ? "without a blank"
                                                                            : "inside the header";
      add("length of the header", change, spoilt);
    }
  }
  for (const std::uint64_t size : {std::uint64_t{0}, std::uint64_t{7}}) {
    add("end of the file", "in the length", bytes.substr(0, size));
  }
  for (const std::uint64_t size : {std::uint64_t{8}, length / 2, length + 7}) {
    add("end of the file", "in the header", bytes.substr(0, size));
  }
  for (const std::uint64_t size : {length + 8, (length + bytes.size()) / 2, bytes.size() - 1}) {
    add("end of the file", "in the data", bytes.substr(0, size));
  }
  for (const std::size_t more : {1U, 8U, 4096U}) {
    add("end of the file", "bytes behind it", bytes + std::string(more, '\0'));
  }
  for (const std::size_t at : {std::size_t{8}, std::size_t{9}, 8 + length / 2}) {
    for (const char value : {'\0', '\xff', '\x80'}) {
      add("byte of the header", static_cast<unsigned char>(value) > 0x7f ? "no UTF-8" : "control",
          set(at, value));
    }
  }
  add("first byte of the header", "no brace", set(8, '['));
  add("first byte of the header", "blank", set(8, ' '));
  const std::string zeros(64, '\0');
  add("all", "zeros", std::string(bytes.size(), '\0'));
  add("all", "first block zeros", zeros + bytes.substr(64));
  add("all", "other shard", read_text(folder->root() / kShard2));
  add("all", "LFS pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n");
  add("all", "web page", "<!DOCTYPE html><html></html>");
  add("all", "zip archive", "PK\x03\x04" + bytes);
  add("all", "GGUF", "GGUF" + bytes);
  group.mutations.push_back(
      {"all", "removed", {kShard1, "", ""}, [folder] { return folder->without(kShard1); }});
  group.caught = {
      {"length of the header", "beyond 100 MB", "header-too-long"},
      {"length of the header", "past the end of the file", "truncated-file"},
      {"length of the header", "into the data", "header-not-utf8"},
      {"length of the header", "inside the header|one byte into the data", "header-syntax"},
      {"length of the header", "inside the metadata", "bad-metadata"},
      {"length of the header", "without a blank", "trailing-bytes"},
      {"end of the file", "in the length", "file-too-short"},
      {"end of the file", "in the header|in the data", "truncated-file"},
      {"end of the file", "bytes behind it", "trailing-bytes"},
      {"byte of the header", "control", "header-syntax"},
      {"byte of the header", "no UTF-8", "header-not-utf8"},
      {"first byte of the header", "*", "header-syntax"},
      {"all", "zeros|first block zeros", "header-syntax"},
      {"all", "other shard", "tensor-not-in-shard duplicate-tensor"},
      {"all", "LFS pointer", "lfs-pointer"},
      {"all", "web page", "web-page"},
      {"all", "zip archive|GGUF", "wrong-container"},
      {"all", "removed", "missing-shard"},
  };
  return group;
}

MutationGroup header_mutations() {
  const Model model = sound_model();
  const auto folder = model_folder(model);
  MutationGroup group{"header",
                      "each field of each kind of tensor in a header, `__metadata__`",
                      folder->sound(),
                      {},
                      {},
                      {}};
  const std::map<std::string, Shard> shards{{kShard1, read_shard(folder->root(), kShard1)},
                                            {kShard2, read_shard(folder->root(), kShard2)}};
  const auto add = [&](const std::string& subject, const std::string& change, const Shard& shard,
                       const std::string& tensor, const ordered_json& header) {
    group.mutations.push_back({subject,
                               change,
                               {shard.name, tensor, ""},
                               [folder, name = shard.name, bytes = bytes_of(header, shard.data)] {
                                 return folder->with(name, bytes);
                               }});
  };
  for (const std::string& name : one_of_each_kind(model)) {
    const Shard& shard = shards.at(model.tensors.at(name).shard);
    const std::string subject = model.tensors.at(name).dtype + " " + without_layer(name);
    for (const auto& [change, entry] : entry_changes(shard.header[name])) {
      ordered_json header = shard.header;
      header[name] = entry;
      add(subject, change, shard, name, header);
    }
    ordered_json without = shard.header;
    without.erase(name);
    add(subject, "removed", shard, "", without);
    ordered_json renamed;
    for (const auto& [key, entry] : shard.header.items()) {
      renamed[key == name ? name + "s" : key] = entry;
    }
    add(subject, "renamed", shard, name, renamed);
    const std::string text = shard.header.dump();
    const std::string key = nlohmann::json(name).dump() + ":";
    std::string twice = text;
    twice.insert(twice.find(key), key + shard.header[name].dump() + ",");
    group.mutations.push_back(
        {subject,
         "written twice",
         {shard.name, name, ""},
         [folder, file = shard.name, bytes = Model::file_bytes(twice, shard.data)] {
           return folder->with(file, bytes);
         }});
  }
  const Shard& shard = shards.at(kShard1);
  each_json_change(
      {{"__metadata__", shard.header["__metadata__"]}}, {},
      [&](const std::string& path, const std::string& change, const nlohmann::json& changed) {
        ordered_json header = shard.header;
        header.erase("__metadata__");
        if (changed.contains("__metadata__")) {
          header["__metadata__"] = changed["__metadata__"];
        }
        add(path, change, shard, "", header);
      });
  constexpr const char* kBroken =
      "*: removed|*: null|*: number|*: object|dtype: list|shape: text|shape: extent ? negative|"
      "shape: extent ? fraction|shape: extent ? text|data_offsets: text|data_offsets: one only|"
      "data_offsets: three|data_offsets: fraction|data_offsets: negative";
  group.caught = {
      {"__metadata__", "text|number|boolean|list", "bad-metadata"},
      {"__metadata__.format", "null|number|boolean|list|object", "bad-metadata"},
      {"__metadata__*", "*", "metadata-format", {.key = "__metadata__.format"}},
      {"*", kBroken, "header-syntax"},
      {"*", "null|number|list", "header-syntax"},
      {"*", "dtype: text|dtype: bfloat16", "unknown-dtype"},
      {"F8_E4M3 *", "dtype: BOOL|dtype: U8|dtype: I8|dtype: F8_E8M0", "unsupported-dtype"},
      {"F8_E4M3 *", "dtype: F8_E5M2*|dtype: F8_E4M3FNUZ", "fp8-format"},
      {"BF16 *", "dtype: I16|dtype: U16", "unsupported-dtype"},
      {"BF16 model.embed_tokens.weight", "dtype: F16", "mixed-dtypes dtype-key"},
      {"BF16 *", "dtype: F16", "mixed-dtypes"},
      {"F32 *_scale_inv", "dtype: I32|dtype: U32", "scale-dtype"},
      {"F32 *_scale_inv", "dtype: F4|dtype: F6_*", "partial-bytes"},
      {"F32 *", "dtype: I32|dtype: U32", "unsupported-dtype"},
      {"*", "dtype: *", "size-mismatch"},
      {"*", "shape: extent ? huge", "size-overflow"},
      {"*", "shape: extent ? *", "size-mismatch"},
      {"F32 *_scale_inv", "shape: *", "scale-shape"},
      {"*", "shape: scalar", "size-mismatch"},
      {"F8_E4M3 mlp.gate_proj.weight", "shape: turned|shape: halved",
       "wrong-shape config-dimension"},
      {"F8_E4M3 mlp.down_proj.weight", "shape: halved", "wrong-shape scale-shape"},
      {"*", "shape: *", "wrong-shape"},
      {"*", "data_offsets: exchanged", "offsets-reversed"},
      {"*", "data_offsets: end one *|data_offsets: huge", "size-mismatch"},
      // The hole is named by the tensor behind it.
      {"*", "data_offsets: past the end", "hole-in-data", {.tensor = "*"}},
      {"*", "data_offsets: *|removed", "hole-in-data"},
      {"*", "renamed", "tensor-not-in-shard tensor-not-in-index", {.tensor = "*"}},
      {"*", "written twice", "duplicate-name"},
  };
  return group;
}

}  // namespace ds::test
