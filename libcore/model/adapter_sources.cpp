#include "libcore/model/adapter_sources.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/io/safetensors_header.h"

namespace ds {

namespace {

constexpr std::size_t kListed = 5;  // names shown in a message

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string listed(const std::vector<std::string>& names) {
  std::string text;
  for (std::size_t i = 0; i < std::min(names.size(), kListed); ++i) {
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", names[i]);
  }
  if (names.size() > kListed) text += fmt::format(" and {} more", names.size() - kListed);
  return text;
}

// The key without its adapter name: ".lora_A.default.weight" -> ".lora_A.weight". Only the end of
// the key is looked at.
std::string without_adapter_name(const std::string& key) {
  for (const std::string_view part : {".lora_A.", ".lora_B."}) {
    const std::size_t at = key.rfind(part);
    if (at == std::string::npos || !key.ends_with(".weight")) continue;
    const std::size_t name = at + part.size();
    const std::size_t end = key.size() - std::strlen(".weight");
    if (name < end && key.find('.', name) == end) return key.substr(0, name) + "weight";
  }
  for (const std::string_view part :
       {".lora_embedding_A.", ".lora_embedding_B.", ".lora_magnitude_vector."}) {
    const std::size_t at = key.rfind(part);
    if (at != std::string::npos && key.find('.', at + part.size()) == std::string::npos) {
      return key.substr(0, at + part.size() - 1);
    }
  }
  return key;
}

// What is left of a key when every known wrapper prefix is taken off: "layers.0.…",
// "embed_tokens.…".
std::string_view bare(std::string_view key) {
  constexpr std::array<std::string_view, 5> kPrefixes = {"base_model.", "language_model.", "model.",
                                                         "module.", "_orig_mod."};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view prefix : kPrefixes) {
      if (key.starts_with(prefix)) {
        key.remove_prefix(prefix.size());
        again = true;
      }
    }
  }
  return key;
}

// What whole-file defect would explain that `key` matches nothing; empty when none would.
std::string prefix_problem(const std::string& key, const SlotIndex& index) {
  const std::string plain = without_adapter_name(key);
  const std::string_view rest = bare(plain);
  const std::string name = (rest.starts_with("lm_head") ? "" : "model.") + std::string(rest);
  if (!index.contains(name)) return "";
  const std::string found = plain.substr(0, plain.size() - rest.size());
  const std::string needed =
      std::string(kAdapterPrefix) + name.substr(0, name.size() - rest.size());
  if (found == needed) return "the keys still hold an adapter name";
  std::string what = "the prefix is wrong";
  if (contains(found, "language_model.")) {
    what = "'language_model.' is too much";
  } else if (found.find(kAdapterPrefix) != found.rfind(kAdapterPrefix)) {
    what = "'base_model.model.' is doubled";
  } else if (found == needed + "model.") {
    what = "'model.' is doubled";
  } else if (found + "model." == needed) {
    what = "one 'model.' is missing";
  } else if (!contains(found, kAdapterPrefix)) {
    what = "'base_model.model.' is missing";
  }
  return fmt::format("the keys begin with '{}' where '{}' is needed: {}", found, needed, what);
}

[[noreturn]] void refuse(const SafetensorsFile& file, const std::string& text,
                         const std::string& hint) {
  throw Error(ExitCode::kBadInput, file.path().string() + ": " + text, hint);
}

// Keys of features that would be lost if they were skipped.
void refuse_unsupported(const SafetensorsFile& file, const TensorInfo& tensor,
                        std::string_view key) {
  std::string what;
  if (contains(key, ".modules_to_save.") ||
      (key.ends_with(".weight") && !contains(key, ".lora_"))) {
    what = "is a whole weight of the model (modules_to_save)";
  } else if (key.ends_with(".lora_A.bias") || key.ends_with(".lora_B.bias")) {
    what = "is a bias of the adapter (lora_bias)";
  } else if (key.ends_with(".bias")) {
    what = "is a bias of the model (bias other than \"none\")";
  } else if (contains(key, "trainable_tokens")) {
    what = "holds trained token rows (trainable_token_indices)";
  } else {
    return;
  }
  refuse(file, fmt::format("tensor '{}' {}, which cannot be loaded here", tensor.name, what),
         "merge this adapter with the tool that made it, or train it again without that setting");
}

std::string partner_of(const std::string& name) {
  for (const std::string_view part : {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"}) {
    const std::size_t at = name.rfind("." + std::string(part));
    if (at == std::string::npos) continue;
    std::string partner = name;
    char& letter = partner[at + part.size()];
    letter = letter == 'A' ? 'B' : 'A';
    return partner;
  }
  return "";
}

// The weight of the model that a key without kAdapterPrefix names: "lm_head.modules_to_save.weight"
// -> "lm_head.weight".
std::string whole_name(std::string name) {
  for (const std::string_view part :
       {".modules_to_save.default.", ".modules_to_save.", ".base_layer."}) {
    const std::size_t at = name.rfind(part);
    if (at != std::string::npos) return name.replace(at, part.size(), ".");
  }
  return name;
}

// peft stores a copy of an adapted embedding's or head's weight. It is accepted when its shape is
// the adapter's; another shape means a resized vocabulary.
bool is_adapted_copy(const SafetensorsFile& file, const TensorInfo& tensor, std::string_view key,
                     const std::vector<AdapterSlot>& slots, const SlotIndex& index) {
  constexpr std::string_view kSuffix = ".base_layer.weight";
  if (!key.ends_with(kSuffix)) return false;
  const std::string module(key.substr(0, key.size() - kSuffix.size()));
  std::vector<std::int64_t> needed;
  const auto shapes = [&](const char* a_name, const char* b_name, bool a_is_rows) {
    const auto a = index.find(module + a_name);
    const auto b = index.find(module + b_name);
    if (a == index.end() || b == index.end()) return;
    const std::vector<std::int64_t>& of_a = slots[a->second].shape;
    const std::vector<std::int64_t>& of_b = slots[b->second].shape;
    needed = a_is_rows ? std::vector{of_a[0], of_b[0]} : std::vector{of_b[0], of_a[1]};
  };
  shapes(".lora_embedding_A", ".lora_embedding_B", true);
  shapes(".lora_A.weight", ".lora_B.weight", false);
  if (needed.empty()) return false;
  if (tensor.shape != needed) {
    refuse(file,
           fmt::format("tensor '{}' has shape {}, but the base model's has {}", tensor.name,
                       shape_text(tensor.shape), shape_text(needed)),
           "an adapter over a resized vocabulary cannot be loaded; use the base it was trained on");
  }
  return true;
}

// Whether the adapter may bring this weight of the model as a whole: named by modules_to_save, or
// one of the two that peft saves unasked when the vocabulary was resized.
bool may_replace(const std::string& name, const LoraConfig& lora) {
  if (name == "model.embed_tokens.weight" || name == "lm_head.weight") return true;
  for (const std::string& module : lora.modules_to_save) {
    for (std::string path = name; path.find('.') != std::string::npos;) {
      path.resize(path.rfind('.'));  // the module's, then its parents'
      if (path == module || path.ends_with("." + module)) return true;
    }
  }
  return false;
}

void check_shape(const SafetensorsFile& file, const TensorInfo& tensor,
                 const std::vector<std::int64_t>& needed, const LoraConfig& lora,
                 std::size_t rank_axis) {
  if (tensor.shape == needed) return;
  bool only_rank = tensor.shape.size() == needed.size() && rank_axis < needed.size();
  for (std::size_t axis = 0; only_rank && axis < needed.size(); ++axis) {
    only_rank = axis == rank_axis || tensor.shape[axis] == needed[axis];
  }
  std::string text = fmt::format("tensor '{}' has shape {}, needed is {}", tensor.name,
                                 shape_text(tensor.shape), shape_text(needed));
  if (only_rank) {
    refuse(file,
           text + fmt::format(" (rank {} in the file, {} by r = {} and rank_pattern)",
                              tensor.shape[rank_axis], needed[rank_axis], lora.r),
           "use the adapter_config.json that belongs to this file, or give its rank");
  }
  refuse(file, text, "use the base model that this adapter was trained on");
}

AdapterSource plain_source(const SafetensorsFile& file, const TensorInfo& tensor,
                           const AdapterSlot& slot, const LoraConfig& lora) {
  const std::vector<std::int64_t>& shape = slot.shape;
  AdapterSource source;
  source.tensor = &tensor;
  if (slot.name.ends_with(".lora_embedding_A")) {  // [vocab, r] here, [r, vocab] in the file
    check_shape(file, tensor, {shape[1], shape[0]}, lora, 0);
    source.row_step = 1;
    source.col_step = shape[0];
    return source;
  }
  const bool is_a = slot.name.ends_with(".lora_A.weight");
  check_shape(file, tensor, shape, lora, shape.size() < 2 ? 9 : (is_a ? 0 : 1));
  source.row_step = shape.empty() ? 0 : shape.back();
  return source;
}

}  // namespace

SafetensorsFile open_adapter_file(const std::filesystem::path& folder) {
  std::error_code error;
  const auto path = folder / kAdapterTensorFile;
  if (std::filesystem::exists(path, error)) return SafetensorsFile::open(path);
  for (const char* old : {"adapter_model.bin", "adapter_model.pt"}) {
    if (std::filesystem::exists(folder / old, error)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: {} is a pickle file, which is never opened here; needed is {}",
                              folder.string(), old, kAdapterTensorFile),
                  "convert it with the library that wrote it (save_pretrained with "
                  "safe_serialization=True)");
    }
  }
  // An adapter that is not named "default" lies one folder deeper.
  std::string hint = "give the folder that holds adapter_config.json and adapter_model.safetensors";
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    std::error_code inner;
    if (std::filesystem::exists(it->path() / kAdapterTensorFile, inner)) {
      hint = fmt::format("did you mean {}?", it->path().string());
      break;
    }
  }
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: has no {}", folder.string(), kAdapterTensorFile), hint);
}

float adapter_value(const std::byte* data, DType dtype, std::int64_t i) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, data + i * 4, 4);
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, data + i * 2, 2);
  if (dtype == DType::kBF16) {
    kernels::bf16 value;
    value.bits = bits;
    return static_cast<float>(value);
  }
  kernels::f16 value;
  value.bits = bits;
  return static_cast<float>(value);
}

std::vector<AdapterSlot> adapter_slots(const std::vector<LoraTarget>& targets, bool use_dora) {
  std::vector<AdapterSlot> slots;
  for (const LoraTarget& target : targets) {
    const ModuleInfo& module = target.module;
    if (module.kind == ModuleKind::kEmbedding) {
      slots.push_back({module.path + ".lora_embedding_A", {module.in, target.rank}});
      slots.push_back({module.path + ".lora_embedding_B", {module.out, target.rank}});
      continue;
    }
    slots.push_back({module.path + ".lora_A.weight", {target.rank, module.in}});
    slots.push_back({module.path + ".lora_B.weight", {module.out, target.rank}});
    if (use_dora) slots.push_back({module.path + ".lora_magnitude_vector", {module.out}});
  }
  return slots;
}

std::vector<AdapterSource> match_adapter(const SafetensorsFile& file, const LoraConfig& lora,
                                         const std::vector<AdapterSlot>& slots,
                                         std::vector<WholeWeight>* whole) {
  SlotIndex index;
  for (std::size_t i = 0; i < slots.size(); ++i) index.emplace(slots[i].name, i);

  std::vector<AdapterSource> sources(slots.size());
  std::vector<std::string> fused;
  std::vector<std::string> unmatched;
  std::set<std::string> keys;
  std::size_t matched = 0;
  for (const TensorInfo& tensor : file.tensors()) {
    const bool prefixed = tensor.name.starts_with(kAdapterPrefix);
    const std::string key(prefixed ? tensor.name.substr(kAdapterPrefix.size()) : tensor.name);
    if (is_adapted_copy(file, tensor, key, slots, index)) {
      if (whole != nullptr) whole->push_back({whole_name(key), &tensor, true});
      continue;
    }
    const auto found = index.find(key);
    if (prefixed && found != index.end()) {
      sources[found->second].tensor = &tensor;
      keys.insert(key);
      ++matched;
      continue;
    }
    const bool plain = key.find(".lora_") == std::string::npos;
    if (whole != nullptr && prefixed && plain && may_replace(whole_name(key), lora)) {
      whole->push_back({whole_name(key), &tensor, false});
      ++matched;
      continue;
    }
    refuse_unsupported(file, tensor, key);
    if (prefixed && is_fused_expert_key(key)) {
      fused.push_back(key);
      ++matched;
    } else {
      unmatched.emplace_back(tensor.name);
    }
  }

  const std::size_t total = matched + unmatched.size();
  if (total == 0) refuse(file, "holds no adapter tensor", "check that this is the right file");
  if (matched == 0) {
    std::string problem = prefix_problem(unmatched.front(), index);
    if (problem.empty()) {
      std::vector<std::string> names;
      for (std::size_t i = 0; i < std::min<std::size_t>(slots.size(), 4096); ++i) {
        names.push_back(std::string(kAdapterPrefix) + slots[i].name);
      }
      const std::string near = nearest_name(unmatched.front(), names);
      problem = fmt::format("the first is '{}'", unmatched.front());
      if (!near.empty()) problem += fmt::format(", the nearest needed is '{}'", near);
    }
    refuse(file,
           fmt::format("0 of {} keys match an adapter module of this model; {}", total, problem),
           "rename the keys, or use the base model that this adapter was trained on");
  }
  for (const std::string& key : keys) {
    const std::string partner = partner_of(key);
    if (!partner.empty() && index.contains(partner) && !keys.contains(partner)) {
      refuse(file,
             fmt::format("has '{}{}' but not '{}{}'", kAdapterPrefix, key, kAdapterPrefix, partner),
             "the file is incomplete: copy it again");
    }
  }
  if (!unmatched.empty()) {
    std::string hint = "check target_modules of adapter_config.json against the keys of the file";
    if (contains(unmatched.front(), "lora_magnitude_vector") && !lora.use_dora) {
      hint = "these are DoRA magnitudes, but use_dora is false in adapter_config.json";
    }
    refuse(file,
           fmt::format("{} of {} keys match no adapter module: {}", unmatched.size(), total,
                       listed(unmatched)),
           hint);
  }

  if (!fused.empty()) match_fused_experts(file, fused, slots, index, sources);
  std::vector<std::string> missing;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    AdapterSource& source = sources[i];
    if (source.tensor == nullptr) {
      missing.push_back(std::string(kAdapterPrefix) + slots[i].name);
      continue;
    }
    const DType dtype = source.tensor->dtype;
    if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
      refuse(file,
             fmt::format("tensor '{}' is {}, needed is F32, BF16 or F16", source.tensor->name,
                         kernels::dtype_name(dtype)),
             "store the adapter in one of these types");
    }
    if (source.row_step == 0) {
      source = plain_source(file, *source.tensor, slots[i], lora);
    }
  }
  if (!missing.empty()) {
    refuse(file,
           fmt::format("lacks {} of {} adapter tensors: {}", missing.size(), slots.size(),
                       listed(missing)),
           "the file belongs to other target modules, or is incomplete");
  }
  return sources;
}

void expect_finite(const SafetensorsFile& file, const std::vector<AdapterSource>& sources) {
  std::set<const TensorInfo*> used;
  for (const AdapterSource& source : sources) used.insert(source.tensor);
  for (const TensorInfo& tensor : file.tensors()) {
    if (!used.contains(&tensor)) continue;
    const std::byte* data = file.data(tensor);
    const std::int64_t count =
        static_cast<std::int64_t>(tensor.end - tensor.begin) / kernels::dtype_size(tensor.dtype);
    for (std::int64_t i = 0; i < count; ++i) {
      const float value = adapter_value(data, tensor.dtype, i);
      if (std::isfinite(value)) continue;
      refuse(file,
             fmt::format("tensor '{}' holds {} at element {}, needed are finite values",
                         tensor.name, value, i),
             "the adapter is broken: use an earlier checkpoint of its training");
    }
    // An adapter of all experts is gigabytes: checked pages need not stay in this process.
    file.file().dont_need(tensor.begin, tensor.bytes());
  }
}

}  // namespace ds
