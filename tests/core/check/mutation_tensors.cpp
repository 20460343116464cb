// Tensors that are consistent in their file and wrong for the model, and the index.
#include <fmt/format.h>

#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

using nlohmann::json;

constexpr const char* kIndexName = "model.safetensors.index.json";

void add_tensor_changes(MutationGroup& group, const std::shared_ptr<SpoiltFolder>& folder,
                        const std::shared_ptr<Model>& sound, const std::string& name) {
  const ModelTensor& tensor = sound->tensors.at(name);
  const std::size_t layer = name.find("layers.");
  const std::string form = layer == std::string::npos ? "outside"
                           : name[layer + 7] == '0'   ? "dense"
                           : name[layer + 7] == '3'   ? "mtp"
                                                      : "moe";
  const std::string subject = form + " " + tensor.dtype + " " + without_layer(name);
  const auto add = [&](const std::string& change, const Place& place,
                       const std::function<void(Model&)>& spoil) {
    group.mutations.push_back({subject, change, place, [=] {
                                 Model model = *sound;
                                 spoil(model);
                                 return check_model(*folder, model);
                               }});
  };
  const Place here{tensor.shard, name, ""};
  const bool scale = name.ends_with("_scale_inv");
  add("removed",
      scale ? Place{tensor.shard, name.substr(0, name.rfind("_scale_inv")), ""}
            : Place{".", name, ""},
      [=](Model& m) { m.tensors.erase(name); });
  for (const char* dtype :
       {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I32", "U8"}) {
    if (dtype == tensor.dtype) continue;
    add(std::string("dtype: ") + dtype, here,
        [=, shape = tensor.shape](Model& m) { m.set(name, dtype, shape); });
  }
  const auto reshape = [&](const std::string& change, const std::vector<std::int64_t>& shape) {
    if (shape == tensor.shape) return;
    add("shape: " + change, here,
        [=, dtype = tensor.dtype](Model& m) { m.set(name, dtype, shape); });
  };
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    const auto extent = [&](const char* what, std::int64_t value) {
      auto shape = tensor.shape;
      shape[i] = value;
      reshape(fmt::format("extent {} {}", i, what), shape);
    };
    extent("one more", tensor.shape[i] + 1);
    extent("none", 0);
    extent("twice", 2 * tensor.shape[i]);
    if (tensor.shape[i] > 1) extent("half", tensor.shape[i] / 2);
  }
  reshape("turned", {tensor.shape.rbegin(), tensor.shape.rend()});
  auto longer = tensor.shape;
  longer.insert(longer.begin(), 1);
  reshape("one axis more", longer);
  reshape("scalar", {});
  const auto rename = [&](const std::string& change, const std::string& to) {
    add("name: " + change, {tensor.shard, to, ""}, [=](Model& m) { m.rename(name, to); });
  };
  rename("one letter more", name + "s");
  rename("first part left out", name.substr(name.find('.') + 1));
  rename("prefix twice", "model." + name);
  if (layer != std::string::npos) {
    const std::size_t end = name.find('.', layer + 7);
    rename("layer 17", name.substr(0, layer + 7) + "17" + name.substr(end));
    rename("layer 01", name.substr(0, layer + 7) + "01" + name.substr(end));
    rename("layer -1", name.substr(0, layer + 7) + "-1" + name.substr(end));
  }
  std::string upper = name;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  rename("upper case", upper);
  rename("other bars", [&] {
    std::string text = name;
    std::replace(text.begin(), text.end(), '.', '_');
    return text;
  }());
  rename("blank behind", name + " ");
}

MutationGroup of_model(const char* name, const char* about, bool fp8) {
  const auto sound = std::make_shared<Model>(sound_model({.mtp = true}, fp8));
  const auto folder = model_folder(*sound);
  MutationGroup group{name, about, folder->sound(), {}, {}, {}};
  for (const std::string& tensor : one_of_each_kind(*sound, fp8)) {
    add_tensor_changes(group, folder, sound, tensor);
  }
  return group;
}

}  // namespace

MutationGroup tensor_mutations() {
  MutationGroup group =
      of_model("tensors", "dtype, shape and name of each kind of tensor and scale", true);
  constexpr const char* kIntegers = "dtype: F64|dtype: F8_E8M0|dtype: I32|dtype: U8";
  constexpr const char* kPair = "* F8_E4M3 mlp.*gate_proj.weight|* F8_E4M3 mlp.*up_proj.weight";
  constexpr const char* kBlocks =
      "dense F8_E4M3 mlp.up_proj.weight|* F8_E4M3 self_attn.kv_b_proj.weight";
  group.caught = {
      {"* F32 *_scale_inv", "removed", "fp8-without-scale"},
      {"mtp F8_E4M3 *", "removed", "mtp-incomplete scale-without-weight"},
      {"mtp *", "removed", "mtp-incomplete"},
      {"* F8_E4M3 *", "removed", "missing-tensor scale-without-weight"},
      {"*", "removed", "missing-tensor"},
      {"* F32 *_scale_inv", "dtype: BF16|dtype: F16", "narrow-scale"},
      {"* F32 *_scale_inv", "dtype: U8|dtype: F8_E8M0", "ue8m0-undeclared"},
      {"* F32 *_scale_inv", "dtype: *", "scale-dtype"},
      {"*", kIntegers, "unsupported-dtype"},
      {"*", "dtype: F8_E5M2", "fp8-format"},
      {"*", "dtype: F8_E4M3", "must-not-be-fp8"},
      {kPair, "dtype: *", "partly-quantised scale-of-unquantised unquantised-pair"},
      {"* F8_E4M3 *", "dtype: *", "partly-quantised scale-of-unquantised"},
      {"* F32 *", "dtype: BF16|dtype: F16", "router-bias-dtype"},
      {"* model.embed_tokens.weight", "dtype: F16", "mixed-dtypes dtype-key"},
      {"*", "dtype: F16", "mixed-dtypes"},
      {"* model.embed_tokens.weight",
       "dtype: F32",
       "dtype-key",
       {"config.json", "", "torch_dtype"}},
      {"*_scale_inv", "shape: extent ? none", "scale-shape empty-tensor"},
      {"*_scale_inv", "shape: *", "scale-shape"},
      {"dense F8_E4M3 mlp.gate_proj.weight",
       "shape: extent 0 half",
       "config-dimension wrong-shape",
       {"config.json", "", "intermediate_size"}},
      {"dense F8_E4M3 mlp.gate_proj.weight", "shape: turned", "wrong-shape config-dimension"},
      {"dense F8_E4M3 mlp.gate_proj.weight",
       "shape: extent 0 one more|shape: extent 0 twice",
       "config-dimension wrong-shape scale-shape",
       {"config.json", "", "intermediate_size"}},
      {kBlocks, "shape: extent 0 one more|shape: extent 0 twice", "wrong-shape scale-shape"},
      {"* F8_E4M3 self_attn.q_b_proj.weight", "shape: extent 0 twice", "wrong-shape scale-shape"},
      {"dense F8_E4M3 mlp.down_proj.weight", "shape: extent 1 one more|shape: extent 1 twice",
       "wrong-shape scale-shape"},
      {"* F8_E4M3 *", "shape: extent ? none", "wrong-shape empty-tensor scale-shape"},
      {"*", "shape: extent ? none", "wrong-shape empty-tensor"},
      {"*", "shape: *", "wrong-shape"},
      {"*_scale_inv", "name: blank behind", "odd-name unknown-tensor fp8-without-scale"},
      {"*_scale_inv", "name: layer 17", "layer-beyond-config fp8-without-scale"},
      {"*_scale_inv", "name: *", "unknown-tensor fp8-without-scale"},
      {"mtp F8_E4M3 *", "name: blank behind",
       "odd-name unknown-tensor mtp-incomplete scale-without-weight"},
      {"mtp F8_E4M3 *", "name: layer 17",
       "layer-beyond-config mtp-incomplete scale-without-weight"},
      {"mtp F8_E4M3 *", "name: *", "unknown-tensor mtp-incomplete scale-without-weight"},
      {"mtp *", "name: blank behind", "odd-name unknown-tensor mtp-incomplete"},
      {"mtp *", "name: layer 17", "layer-beyond-config mtp-incomplete"},
      {"mtp *", "name: *", "unknown-tensor mtp-incomplete"},
      {"* F8_E4M3 *", "name: blank behind",
       "odd-name unknown-tensor missing-tensor scale-without-weight"},
      {"* F8_E4M3 *", "name: layer 17", "layer-beyond-config missing-tensor scale-without-weight"},
      {"* F8_E4M3 *", "name: *", "unknown-tensor missing-tensor scale-without-weight"},
      {"*", "name: blank behind", "odd-name unknown-tensor missing-tensor"},
      {"*", "name: layer 17", "layer-beyond-config missing-tensor"},
      {"*", "name: *", "unknown-tensor missing-tensor"},
  };
  return group;
}

MutationGroup plain_tensor_mutations() {
  MutationGroup group = of_model("BF16 tensors", "the same of a checkpoint in BF16", false);
  constexpr const char* kPair = "* BF16 mlp.*gate_proj.weight|* BF16 mlp.*up_proj.weight";
  constexpr const char* kMatrix = "* BF16 mlp.*_proj.weight|* BF16 self_attn.*_proj*.weight";
  group.caught = {
      {"mtp *", "removed", "mtp-incomplete"},
      {"*", "removed", "missing-tensor"},
      {"*", "dtype: F64|dtype: F8_E8M0|dtype: I32|dtype: U8", "unsupported-dtype"},
      {"*", "dtype: F8_E5M2", "fp8-format"},
      {kPair, "dtype: F8_E4M3",
       "fp8-without-scale fp8-undeclared partly-quantised unquantised-pair"},
      {kMatrix, "dtype: F8_E4M3", "fp8-without-scale fp8-undeclared partly-quantised"},
      {"*", "dtype: F8_E4M3", "must-not-be-fp8"},
      {kMatrix, "dtype: F32", "mixed-dtypes"},
      {"* F32 *", "dtype: BF16|dtype: F16", "router-bias-dtype"},
      {"* model.embed_tokens.weight", "dtype: F16", "mixed-dtypes dtype-key"},
      {"*", "dtype: F16", "mixed-dtypes"},
      {"* model.embed_tokens.weight",
       "dtype: F32",
       "dtype-key",
       {"config.json", "", "torch_dtype"}},
      {"dense BF16 mlp.gate_proj.weight",
       "shape: extent 0 half|shape: extent 0 one more|*0 twice",
       "config-dimension wrong-shape",
       {"config.json", "", "intermediate_size"}},
      {"dense BF16 mlp.gate_proj.weight", "shape: turned", "wrong-shape config-dimension"},
      {"*", "shape: extent ? none", "wrong-shape empty-tensor"},
      {"*", "shape: *", "wrong-shape"},
      {"mtp *", "name: blank behind", "odd-name unknown-tensor mtp-incomplete"},
      {"mtp *", "name: layer 17", "layer-beyond-config mtp-incomplete"},
      {"mtp *", "name: *", "unknown-tensor mtp-incomplete"},
      {"*", "name: blank behind", "odd-name unknown-tensor missing-tensor"},
      {"*", "name: layer 17", "layer-beyond-config missing-tensor"},
      {"*", "name: *", "unknown-tensor missing-tensor"},
  };
  return group;
}

MutationGroup index_mutations() {
  const Model model = sound_model();
  const auto folder = model_folder(model);
  MutationGroup group{
      "index", "each entry of model.safetensors.index.json", folder->sound(), {}, {}, {}};
  const json index = json::parse(read_text(folder->root() / kIndexName));
  const auto add = [&](const std::string& subject, const std::string& change, const Place& place,
                       const std::string& text) {
    group.mutations.push_back(
        {subject, change, place, [folder, text] { return folder->with(kIndexName, text); }});
  };
  for (const std::string& name : one_of_each_kind(model)) {
    const std::string subject = name.ends_with("_scale_inv")                  ? "scale"
                                : model.tensors.at(name).dtype == "F8_E4M3"   ? "FP8 tensor"
                                : name.find("layers.3.") != std::string::npos ? "prediction tensor"
                                                                              : "tensor";
    const std::string shard = model.tensors.at(name).shard;
    const std::string other = shard == kShard1 ? kShard2 : kShard1;
    const auto entry = [&](const std::string& change, const Place& place, const json& value) {
      json changed = index;
      changed["weight_map"][name] = value;
      add(subject, change, place, changed.dump());
    };
    entry("other shard", {other, name, ""}, other);
    entry("absent shard", {"absent.safetensors", name, ""}, "absent.safetensors");
    entry("null", {kIndexName, "", ""}, nullptr);
    entry("number", {kIndexName, "", ""}, 7);
    entry("list", {kIndexName, "", ""}, {shard});
    entry("empty", {kIndexName, "", ""}, "");
    entry("parent folder", {kIndexName, "", ""}, "../" + shard);
    entry("absolute", {kIndexName, "", ""}, "/" + shard);
    entry("upper case", {kIndexName, name, ""}, "MODEL-00001-OF-00002.SAFETENSORS");
    json changed = index;
    changed["weight_map"].erase(name);
    add(subject, "removed", {shard, name, ""}, changed.dump());
    changed["weight_map"][name + "s"] = shard;
    add(subject, "renamed", {shard, name, ""}, changed.dump());
    changed = index;
    changed["weight_map"][name + "s"] = shard;
    add(subject, "another entry", {shard, name + "s", ""}, changed.dump());
    std::string twice = index.dump();
    const std::string key = json(name).dump() + ":";
    twice.insert(twice.find(key), key + json(shard).dump() + ",");
    add(subject, "written twice", {kIndexName, "", ""}, twice);
  }
  each_json_change(
      index, [](const std::string& path) { return path.starts_with("weight_map."); },
      [&](const std::string& path, const std::string& change, const json& changed) {
        add(path, change, {kIndexName, "", path}, changed.dump());
      });
  each_key_change(index,
                  [&](const std::string& key, const std::string& change, const std::string& text) {
                    add(key, change, {kIndexName, "", ""}, text);
                  });
  const std::string text = index.dump();
  add("all", "cut", {kIndexName, "", ""}, text.substr(0, text.size() / 2));
  add("all", "empty", {kIndexName, "", ""}, "");
  add("all", "list", {kIndexName, "", ""}, "[]");
  add("all", "no UTF-8", {kIndexName, "", ""}, text.substr(0, 20) + "\xff" + text.substr(20));
  const Place total{"", "", "metadata.total_size"};
  group.caught = {
      {"all", "*", "index-syntax"},
      {"metadata|weight_map", "written twice", "index-duplicate"},
      {"metadata.total_size", "one *|zero|twice|huge", "wrong-total-size", {"*", "*", "*"}},
      {"metadata*", "*", "no-total-size", total},
      {"weight_map", "removed|key misspelt", "index-without-map", {.key = "*"}},
      {"weight_map", "empty", "index-without-map stray-file wrong-total-size"},
      {"weight_map", "*", "index-syntax", {.key = "*"}},
      {"*", "null|number|list", "index-syntax"},
      {"*", "empty|parent folder|absolute", "unsafe-shard-name"},
      {"*", "absent shard|upper case", "stale-index", {.file = "*"}},
      {"*", "other shard|another entry", "tensor-not-in-shard"},
      {"*", "written twice", "index-duplicate"},
      {"scale", "removed", "tensor-not-in-index fp8-without-scale wrong-total-size"},
      {"FP8 tensor", "removed",
       "tensor-not-in-index missing-tensor scale-without-weight wrong-total-size"},
      {"prediction tensor", "removed", "tensor-not-in-index mtp-incomplete wrong-total-size"},
      {"tensor", "removed", "tensor-not-in-index missing-tensor wrong-total-size"},
      {"scale", "renamed", "tensor-not-in-index tensor-not-in-shard fp8-without-scale"},
      {"FP8 tensor", "renamed",
       "tensor-not-in-index tensor-not-in-shard missing-tensor scale-without-weight"},
      {"prediction tensor", "renamed", "tensor-not-in-index tensor-not-in-shard mtp-incomplete"},
      {"tensor", "renamed", "tensor-not-in-index tensor-not-in-shard missing-tensor"},
  };
  return group;
}

}  // namespace ds::test
