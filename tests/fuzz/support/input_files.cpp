#include "tests/fuzz/support/input_files.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "kernels/types.h"
#include "libcore/base/atomic_write.h"
#include "libcore/base/json.h"
#include "libcore/io/gguf.h"
#include "tests/support/paths.h"

namespace ds::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr char kRaw = '\xf5', kPatch = '\xf6', kLines = '\xf7', kWithLength = '\xf8';
constexpr char kHeaderEnd = '\xff';

bool is_marker(char c) { return c == kRaw || c == kPatch || c == kLines || c == kWithLength; }

template <class T>
void append_number(std::string& to, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    to += static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i));
  }
}

template <class T>
T number_of(std::string_view text) {
  T value{};
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// The part of `text` before `end`, which is taken off it.
std::string_view take(std::string_view& text, char end) {
  const std::size_t at = std::min(text.find(end), text.size());
  const std::string_view part = text.substr(0, at);
  text.remove_prefix(std::min(at + 1, text.size()));
  return part;
}

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> parts;
  while (!text.empty()) parts.push_back(take(text, by));
  return parts;
}

// A line of a tensor, its last words first: names may have spaces.
struct TensorLine {
  std::string_view name, type;
  std::vector<std::int64_t> extents;
  std::string fill;
};

TensorLine tensor_line(std::string_view line) {
  const auto last = [&line] {
    const std::size_t space = line.rfind(' ');
    const std::string_view word =
        space == std::string_view::npos ? std::string_view() : line.substr(space + 1);
    line = line.substr(0, std::min(space, line.size()));
    return word;
  };
  TensorLine tensor;
  for (std::string_view hex = last(); hex.size() >= 2; hex.remove_prefix(2)) {
    unsigned value = 0;
    std::from_chars(hex.data(), hex.data() + 2, value, 16);
    tensor.fill += static_cast<char>(value);
  }
  for (const std::string_view extent : split(last(), ',')) {
    tensor.extents.push_back(number_of<std::int64_t>(extent));
  }
  tensor.type = last();
  tensor.name = line;
  return tensor;
}

// Modulo 2^64: lines may claim any size.
std::uint64_t product(const std::vector<std::int64_t>& extents) {
  std::uint64_t size = 1;
  for (const std::int64_t extent : extents) size *= static_cast<std::uint64_t>(extent);
  return size;
}

void append_data(std::string& data, std::uint64_t size, const std::string& fill) {
  if (data.size() >= kMostData) return;
  size = std::min(size, kMostData - data.size());
  const std::size_t begin = data.size();
  data.resize(begin + size);
  for (std::size_t i = 0; i < size && !fill.empty(); ++i) data[begin + i] = fill[i % fill.size()];
}

std::string with_length(std::string header, std::string_view data) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string file;
  append_number(file, std::uint64_t{header.size()});
  return file.append(header).append(data);
}

std::string quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::ignore);
}

void append_text(std::string& file, std::string_view text) {
  append_number(file, std::uint64_t{text.size()});
  file += text;
}

void append_gguf_value(std::string& file, std::string_view type, std::string_view text) {
  const auto head = [&](GgufValueType kind) {
    append_number(file, static_cast<std::uint32_t>(kind));
  };
  if (type == "U") {
    head(GgufValueType::kU64);
    append_number(file, number_of<std::uint64_t>(text));
  } else if (type == "i") {
    head(GgufValueType::kI32);
    append_number(file, number_of<std::int32_t>(text));
  } else if (type == "f") {
    head(GgufValueType::kF32);
    const float value = number_of<float>(text);
    file.append(reinterpret_cast<const char*>(&value), sizeof value);
  } else if (type == "b") {
    head(GgufValueType::kBool);
    append_number(file, number_of<std::uint8_t>(text));
  } else if (type == "s") {
    head(GgufValueType::kString);
    append_text(file, text);
  } else if (type == "S" || type == "I") {
    const std::vector<std::string_view> items = split(text, '|');
    head(GgufValueType::kArray);
    head(type == "S" ? GgufValueType::kString : GgufValueType::kI32);
    append_number(file, std::uint64_t{items.size()});
    for (const std::string_view item : items) {
      if (type == "S") append_text(file, item);
      if (type == "I") append_number(file, number_of<std::int32_t>(item));
    }
  } else {
    head(GgufValueType::kU32);
    append_number(file, number_of<std::uint32_t>(text));
  }
}

std::string patched(const std::string& name, std::string_view patch) {
  static std::map<std::string, nlohmann::json> known;
  const auto [at, fresh] = known.try_emplace(name);
  if (fresh && fs::exists(base_folder() / name)) {
    at->second = parse_json_file(base_folder() / name);
  }
  nlohmann::json change;
  if (at->second.is_null() || try_parse_json(patch, true, change)) return std::string(patch);
  nlohmann::json value = at->second;
  value.merge_patch(change);
  return dump_json(value, -1);
}

std::string bytes_of(char form, const std::string& name, std::string_view content) {
  if (form == kPatch) return patched(name, content);
  if (form == kLines) {
    return name.ends_with(".gguf") ? gguf_of_lines(content) : safetensors_of_lines(content);
  }
  if (form == kWithLength) {
    const std::size_t end = std::min(content.find(kHeaderEnd), content.size());
    return with_length(std::string(content.substr(0, end)),
                       content.substr(std::min(end + 1, content.size())));
  }
  return std::string(content);
}

}  // namespace

std::vector<InputFile> split_input(std::string_view input, std::span<const char* const> names) {
  std::vector<std::size_t> begins;
  for (std::size_t i = 0; i + 1 < input.size(); ++i) {
    const auto letter = static_cast<unsigned char>(input[i + 1]);
    if (is_marker(input[i]) && letter >= 'a' && letter - std::size_t{'a'} < names.size()) {
      begins.push_back(i);
    }
  }
  std::vector<InputFile> files;
  for (std::size_t i = 0; i < begins.size(); ++i) {
    const std::size_t end = i + 1 < begins.size() ? begins[i + 1] : input.size();
    const std::string name = names[static_cast<std::size_t>(input[begins[i] + 1] - 'a')];
    const std::string_view content = input.substr(begins[i] + 2, end - begins[i] - 2);
    files.push_back({name, bytes_of(input[begins[i]], name, content)});
  }
  return files;
}

std::string safetensors_of_lines(std::string_view lines) {
  std::string metadata, members, data;
  std::uint64_t at = 0;
  for (std::string_view line : split(lines, '\n')) {
    if (line.starts_with("@ ")) {
      line.remove_prefix(2);
      const std::string_view key = take(line, ' ');
      metadata += (metadata.empty() ? "" : ",") + quoted(key) + ":" + quoted(line);
      continue;
    }
    const TensorLine tensor = tensor_line(line);
    kernels::DType dtype = kernels::DType::kU8;
    kernels::parse_dtype(std::string(tensor.type), dtype);
    const std::uint64_t size =
        product(tensor.extents) * static_cast<std::uint64_t>(kernels::dtype_bits(dtype)) / 8;
    members += "," + quoted(tensor.name) + ":{\"dtype\":" + quoted(tensor.type) +
               ",\"shape\":" + nlohmann::json(tensor.extents).dump() + ",\"data_offsets\":[" +
               std::to_string(at) + "," + std::to_string(at + size) + "]}";
    at += size;
    append_data(data, size, tensor.fill);
  }
  if (metadata.empty() && members.empty()) return with_length("{}", data);
  std::string header = metadata.empty() ? "" : ",\"__metadata__\":{" + metadata + "}";
  header += members;
  header[0] = '{';
  return with_length(header + "}", data);
}

std::string gguf_of_lines(std::string_view lines) {
  std::string keys, tensors, data;
  std::uint64_t key_count = 0, tensor_count = 0, at = 0, alignment = 32;
  for (std::string_view line : split(lines, '\n')) {
    if (line.starts_with("@ ")) {
      line.remove_prefix(2);
      const std::string_view key = take(line, ' ');
      const std::string_view type = take(line, ' ');
      if (key == "general.alignment") alignment = number_of<std::uint32_t>(line);
      append_text(keys, key);
      append_gguf_value(keys, type, line);
      ++key_count;
      continue;
    }
    const TensorLine tensor = tensor_line(line);
    const auto type = number_of<std::uint32_t>(tensor.type);
    const GgmlTypeInfo* info = ggml_type_info(type);
    std::uint64_t size = product(tensor.extents);
    if (info != nullptr) {
      size = size / static_cast<std::uint64_t>(info->block_values) *
             static_cast<std::uint64_t>(info->block_bytes);
    }
    append_text(tensors, tensor.name);
    append_number(tensors, static_cast<std::uint32_t>(tensor.extents.size()));
    for (const std::int64_t extent : tensor.extents) append_number(tensors, extent);
    append_number(tensors, type);
    append_number(tensors, at);
    ++tensor_count;
    const std::uint64_t padded =
        alignment == 0 ? size : (size + alignment - 1) / alignment * alignment;
    append_data(data, size, tensor.fill);
    append_data(data, padded - size, "");
    at += padded;
  }
  std::string file = "GGUF";
  append_number(file, std::uint32_t{3});
  append_number(file, tensor_count);
  append_number(file, key_count);
  file += keys + tensors;
  if (alignment > 0 && alignment <= kMostData) {
    file.resize((file.size() + alignment - 1) / alignment * alignment);
  }
  return file + data;
}

const fs::path& base_folder() {
  static const fs::path folder = [] {
    fs::path path = test::source_dir() / "tests" / "fuzz" / "base";
    if (!fs::exists(path / "config.json")) {
      std::fprintf(stderr, "%s: no config.json; DEEPSEEK_SOURCE_DIR names the project's root\n",
                   path.c_str());
      std::exit(2);
    }
    return path;
  }();
  return folder;
}

MemoryFolder::MemoryFolder() {
  const fs::path memory = "/dev/shm";
  std::error_code ignored;
  const bool in_memory = std::getenv("TMPDIR") == nullptr && fs::is_directory(memory, ignored);
  std::string pattern =
      ((in_memory ? memory : fs::temp_directory_path()) / "deepseek-fuzz-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + pattern);
  path_ = pattern;
}

MemoryFolder::~MemoryFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void MemoryFolder::hold(const std::vector<InputFile>& files) const {
  for (const auto& entry : fs::directory_iterator(path_)) fs::remove_all(entry.path());
  for (const InputFile& file : files) {
    std::ofstream(path_ / file.name, std::ios::binary | std::ios::trunc) << file.bytes;
  }
}

}  // namespace ds::fuzz
