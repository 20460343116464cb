#include "libcore/io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds {

namespace {

[[noreturn]] void wrong_type(const GgufKey& key, const char* needed) {
  const std::string found = key.is_array()
                                ? std::string("array of ") + gguf_value_type_name(key.element)
                                : std::string(gguf_value_type_name(key.type));
  throw Error(ExitCode::kBadInput, fmt::format("key {} is of type {}, needed is {}",
                                               quote_text(key.name), found, needed));
}

template <class T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

std::optional<std::int64_t> load_integer(GgufValueType type, const std::byte* at) {
  switch (type) {
    case GgufValueType::kU8:
      return load<std::uint8_t>(at);
    case GgufValueType::kI8:
      return load<std::int8_t>(at);
    case GgufValueType::kU16:
      return load<std::uint16_t>(at);
    case GgufValueType::kI16:
      return load<std::int16_t>(at);
    case GgufValueType::kU32:
      return load<std::uint32_t>(at);
    case GgufValueType::kI32:
      return load<std::int32_t>(at);
    case GgufValueType::kI64:
      return load<std::int64_t>(at);
    case GgufValueType::kU64: {
      const auto value = load<std::uint64_t>(at);
      if (value > static_cast<std::uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<std::int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

bool is_integer_type(GgufValueType type) {
  switch (type) {
    case GgufValueType::kF32:
    case GgufValueType::kF64:
    case GgufValueType::kBool:
      return false;
    default:
      return gguf_scalar_bytes(type) != 0;
  }
}

std::int64_t split_key(const GgufFile& file, const char* name) {
  const GgufKey* key = file.find_key(name);
  if (key == nullptr) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: a part of a split without the key {}",
                                                 file.path().string(), name));
  }
  return key->integer();
}

// The one model of a folder.
std::filesystem::path model_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.ends_with(".gguf")) continue;
    const auto split = parse_gguf_split_name(name);
    if (!split || split->part == 1) found.push_back(entry.path());
  }
  if (found.size() == 1) return found.front();
  std::sort(found.begin(), found.end());
  throw Error(
      ExitCode::kBadInput,
      found.empty()
          ? folder.string() + ": no .gguf file in this folder"
          : fmt::format("{}: {} GGUF models in this folder ({}, {}, ...)", folder.string(),
                        found.size(), found[0].filename().string(), found[1].filename().string()),
      "name the file");
}

}  // namespace

std::size_t gguf_scalar_bytes(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
      return 8;
    default:
      return 0;
  }
}

bool GgufKey::is_integer() const { return is_integer_type(type); }
bool GgufKey::is_number() const {
  return is_integer() || type == GgufValueType::kF32 || type == GgufValueType::kF64;
}

std::int64_t GgufKey::integer() const {
  if (!is_integer()) wrong_type(*this, "an integer");
  const auto value = load_integer(type, bytes.data());
  if (!value) {
    throw Error(ExitCode::kBadInput,
                fmt::format("key {} is {}, at most 2^63 - 1 is supported", quote_text(name),
                            load<std::uint64_t>(bytes.data())));
  }
  return *value;
}

double GgufKey::number() const {
  if (type == GgufValueType::kF32) return load<float>(bytes.data());
  if (type == GgufValueType::kF64) return load<double>(bytes.data());
  if (!is_integer()) wrong_type(*this, "a number");
  return static_cast<double>(integer());
}

bool GgufKey::boolean() const {
  if (type != GgufValueType::kBool) wrong_type(*this, "bool");
  return std::to_integer<int>(bytes.front()) != 0;
}

std::string_view GgufKey::text() const {
  if (type != GgufValueType::kString) wrong_type(*this, "string");
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string_view> GgufKey::texts() const {
  if (!is_array() || element != GgufValueType::kString) wrong_type(*this, "array of string");
  std::vector<std::string_view> list;
  list.reserve(count);
  const std::byte* at = bytes.data();
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto size = load<std::uint64_t>(at);
    list.emplace_back(reinterpret_cast<const char*>(at + 8), size);
    at += 8 + size;
  }
  return list;
}

std::vector<std::int64_t> GgufKey::integers() const {
  const std::size_t size = gguf_scalar_bytes(element);
  if (!is_array() || !is_integer_type(element)) wrong_type(*this, "array of integers");
  std::vector<std::int64_t> list;
  list.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto value = load_integer(element, bytes.data() + i * size);
    if (!value) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("item {} of key {} is above 2^63 - 1", i, quote_text(name)));
    }
    list.push_back(*value);
  }
  return list;
}

std::string GgufKey::summary(std::size_t limit) const {
  if (type == GgufValueType::kString) return quote_text(text(), limit);
  if (type == GgufValueType::kBool) return boolean() ? "true" : "false";
  if (type == GgufValueType::kU64) return fmt::format("{}", load<std::uint64_t>(bytes.data()));
  if (is_integer()) return fmt::format("{}", integer());
  if (type == GgufValueType::kF32) return fmt::format("{}", load<float>(bytes.data()));
  if (type == GgufValueType::kF64) return fmt::format("{}", load<double>(bytes.data()));
  std::string out = fmt::format("{} x {}", count, gguf_value_type_name(element));
  if (element != GgufValueType::kString || count == 0) return out;
  out += ": ";
  const std::byte* at = bytes.data();
  for (std::uint64_t i = 0; i < count; ++i) {
    if (out.size() > limit) return out + ", ...";
    const auto size = load<std::uint64_t>(at);
    const std::string_view item(reinterpret_cast<const char*>(at + 8), size);
    out += (i == 0 ? "" : ", ") + quote_text(item, 40);
    at += 8 + size;
  }
  return out;
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile file;
  file.path_ = path;
  file.file_ = MappedFile(path);
  file.header_ = parse_gguf_header({file.file_.data(), file.file_.size()}, path.string());
  return file;
}

const GgufKey* GgufFile::find_key(std::string_view name) const {
  const auto& order = header_.key_order;
  const auto at = std::lower_bound(order.begin(), order.end(), name,
                                   [this](std::uint32_t index, std::string_view wanted) {
                                     return header_.keys[index].name < wanted;
                                   });
  return at != order.end() && header_.keys[*at].name == name ? &header_.keys[*at] : nullptr;
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto& order = header_.tensor_order;
  const auto at = std::lower_bound(order.begin(), order.end(), name,
                                   [this](std::uint32_t index, std::string_view wanted) {
                                     return header_.tensors[index].name < wanted;
                                   });
  return at != order.end() && header_.tensors[*at].name == name ? &header_.tensors[*at] : nullptr;
}

GgufModel GgufModel::open(const std::filesystem::path& given) {
  const std::filesystem::path path = std::filesystem::is_directory(given) ? model_in(given) : given;
  GgufModel model;
  model.files_.push_back(std::make_unique<GgufFile>(GgufFile::open(path)));
  const GgufKey* count_key = model.first().find_key("split.count");
  const std::int64_t count = count_key == nullptr ? 1 : count_key->integer();
  if (count > 1) {
    const auto split = parse_gguf_split_name(path.filename().string());
    if (!split || static_cast<std::int64_t>(split->parts) != count) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: the file is one of {} parts, its name must end in "
                      "-00001-of-{:05}.gguf or the like",
                      path.string(), count, count),
          "give the parts their own names back, or join them with llama-gguf-split --merge");
    }
    model.files_.clear();
    for (std::size_t part = 1; part <= split->parts; ++part) {
      model.files_.push_back(std::make_unique<GgufFile>(
          GgufFile::open(path.parent_path() / gguf_split_name(split->prefix, part, split->parts))));
      const GgufFile& file = *model.files_.back();
      const std::int64_t parts = split_key(file, "split.count");
      const std::int64_t number = split_key(file, "split.no");
      if (parts != count || number != static_cast<std::int64_t>(part) - 1) {
        throw Error(ExitCode::kBadInput,
                    fmt::format("{}: the keys say part {} of {}, the name says part {} of {}",
                                file.path().string(), number + 1, parts, part, split->parts),
                    "the file was renamed or belongs to another split");
      }
    }
  }
  for (const auto& file : model.files_) {
    for (const GgufTensor& tensor : file->tensors())
      model.entries_.push_back({file.get(), &tensor});
  }
  auto& entries = model.entries_;
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.tensor->name < b.tensor->name; });
  const auto twice = std::adjacent_find(
      entries.begin(), entries.end(),
      [](const Entry& a, const Entry& b) { return a.tensor->name == b.tensor->name; });
  if (twice != entries.end()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("tensor {} is in {} and in {}", quote_text(twice->tensor->name),
                            twice->file->path().string(), (twice + 1)->file->path().string()));
  }
  if (count > 1) {
    const std::int64_t wanted = split_key(model.first(), "split.tensors.count");
    if (wanted != static_cast<std::int64_t>(entries.size())) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: the split counts {} tensors, its {} parts hold {}",
                              model.first().path().string(), wanted, count, entries.size()));
    }
  }
  return model;
}

GgufModel::Entry GgufModel::find(std::string_view name) const {
  return find_gguf_tensor(entries_, name);
}

GgufModel::Entry find_gguf_tensor(const std::vector<GgufModel::Entry>& entries,
                                  std::string_view name) {
  const auto at = std::lower_bound(entries.begin(), entries.end(), name,
                                   [](const GgufModel::Entry& entry, std::string_view wanted) {
                                     return entry.tensor->name < wanted;
                                   });
  return at != entries.end() && at->tensor->name == name ? *at : GgufModel::Entry{};
}

std::optional<GgufSplitName> parse_gguf_split_name(const std::string& name) {
  constexpr std::string_view kShape = "-00000-of-00000.gguf";
  if (name.size() <= kShape.size()) return std::nullopt;
  const std::string_view tail = std::string_view(name).substr(name.size() - kShape.size());
  for (std::size_t i = 0; i < kShape.size(); ++i) {
    const bool digit = tail[i] >= '0' && tail[i] <= '9';
    if (kShape[i] == '0' ? !digit : tail[i] != kShape[i]) return std::nullopt;
  }
  GgufSplitName split{name.substr(0, name.size() - kShape.size()), 0, 0};
  std::from_chars(tail.data() + 1, tail.data() + 6, split.part);
  std::from_chars(tail.data() + 10, tail.data() + 15, split.parts);
  if (split.part == 0 || split.part > split.parts) return std::nullopt;
  return split;
}

std::string gguf_split_name(const std::string& name, std::size_t part, std::size_t parts) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", name, part, parts);
}

}  // namespace ds
