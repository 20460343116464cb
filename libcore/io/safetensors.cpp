#include "libcore/io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/utf8.h"
#include "libcore/io/safetensors_header.h"

namespace ds {

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path, MappedFile file)
    : path_(path),
      file_(std::move(file)),
      header_(std::make_unique<SafetensorsHeader>(
          parse_safetensors_header({file_.data(), file_.size()}, path.string()))) {}

SafetensorsFile::SafetensorsFile() : header_(std::make_unique<SafetensorsHeader>()) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  return {path, MappedFile(path)};
}

const std::vector<TensorInfo>& SafetensorsFile::tensors() const { return header_->tensors; }
const std::vector<std::uint32_t>& SafetensorsFile::name_order() const { return header_->by_name; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return header_->metadata;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto& order = header_->by_name;
  const auto& tensors = header_->tensors;
  const auto at = std::lower_bound(
      order.begin(), order.end(), name,
      [&](std::uint32_t index, std::string_view key) { return tensors[index].name < key; });
  if (at == order.end() || tensors[*at].name != name) return nullptr;
  return &tensors[*at];
}

const std::byte* SafetensorsFile::data(const TensorInfo& tensor) const {
  return file_.data() + tensor.begin;
}

ConstView SafetensorsFile::view(const TensorInfo& tensor) const {
  if (tensor.shape.size() > 4) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: tensor {} has rank {}, at most 4 is supported", path_.string(),
                            quote_text(tensor.name), tensor.shape.size()));
  }
  if (!aligned(tensor)) {
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{}: tensor {} begins at byte {}, which is misaligned for {}", path_.string(),
                    quote_text(tensor.name), tensor.begin, kernels::dtype_name(tensor.dtype)));
  }
  return {data(tensor), tensor.dtype, tensor.shape.data(), static_cast<int>(tensor.shape.size())};
}

namespace {

// As serde_json writes strings.
void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

std::string header_text(const std::vector<TensorToWrite>& tensors,
                        const std::vector<std::uint64_t>& sizes,
                        const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    bool first = true;
    for (const auto& [key, value] : metadata) {
      if (!std::exchange(first, false)) text += ',';
      append_json_string(text, key);
      text += ':';
      append_json_string(text, value);
    }
    text += '}';
  }
  std::uint64_t offset = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (text.size() > 1) text += ',';
    append_json_string(text, tensors[i].name);
    text += fmt::format(":{{\"dtype\":\"{}\",\"shape\":[", kernels::dtype_name(tensors[i].dtype));
    for (std::size_t axis = 0; axis < tensors[i].shape.size(); ++axis) {
      if (axis > 0) text += ',';
      text += std::to_string(tensors[i].shape[axis]);
    }
    text += fmt::format("],\"data_offsets\":[{},{}]}}", offset, offset + sizes[i]);
    offset += sizes[i];
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

SafetensorsLayout layout_safetensors(const std::filesystem::path& path,
                                     std::vector<TensorToWrite>& tensors,
                                     const std::map<std::string, std::string>& metadata) {
  const auto defect = [&path](const std::string& what) {
    throw Error(ExitCode::kInternal, path.string() + ": cannot be written: " + what);
  };
  std::sort(tensors.begin(), tensors.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
    return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
  });
  std::vector<const std::string*> names;
  std::vector<std::uint64_t> sizes;
  std::uint64_t total = 0;
  for (const TensorToWrite& tensor : tensors) {
    names.push_back(&tensor.name);
    const std::string shown = quote_text(tensor.name);
    if (tensor.name == "__metadata__") defect("a tensor may not be named \"__metadata__\"");
    if (utf8_error(tensor.name) != kUtf8Valid) defect("the tensor name " + shown + " is not UTF-8");
    std::uint64_t bytes = 0;
    bool whole = true;
    if (!tensor_bytes(tensor.dtype, tensor.shape, bytes, whole) || !whole ||
        __builtin_add_overflow(total, bytes, &total)) {
      defect("tensor " + shown + " has the impossible shape " + shape_text(tensor.shape));
    }
    sizes.push_back(bytes);
  }
  std::sort(names.begin(), names.end(),
            [](const std::string* a, const std::string* b) { return *a < *b; });
  const auto twice =
      std::adjacent_find(names.begin(), names.end(),
                         [](const std::string* a, const std::string* b) { return *a == *b; });
  if (twice != names.end()) defect("two tensors are named " + quote_text(**twice));
  for (const auto& [key, value] : metadata) {
    if (utf8_error(key) != kUtf8Valid || utf8_error(value) != kUtf8Valid) {
      defect("the metadata of " + quote_text(key) + " is not UTF-8");
    }
  }

  const std::string header = header_text(tensors, sizes, metadata);
  if (header.size() > kLargestSafetensorsHeader) {
    defect(fmt::format("its header would have {} bytes, at most {} are allowed", header.size(),
                       kLargestSafetensorsHeader));
  }
  SafetensorsLayout layout;
  for (std::size_t i = 0; i < sizeof(std::uint64_t); ++i) {
    layout.start += static_cast<char>(static_cast<unsigned char>(header.size() >> (8 * i)));
  }
  layout.start += header;
  layout.sizes = std::move(sizes);
  layout.data_bytes = total;
  return layout;
}

void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata) {
  const SafetensorsLayout layout = layout_safetensors(path, tensors, metadata);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (layout.sizes[i] > 0 && tensors[i].data == nullptr) {
      throw Error(ExitCode::kInternal, path.string() + ": cannot be written: tensor " +
                                           quote_text(tensors[i].name) + " has no data");
    }
  }
  AtomicFile file(path);
  file.reserve(layout.start.size() + layout.data_bytes);
  file.write(layout.start);
  for (std::size_t i = 0; i < tensors.size(); ++i) file.write(tensors[i].data, layout.sizes[i]);
  file.commit();
}

}  // namespace ds
