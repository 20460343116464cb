#include "libcore/io/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/sort_runs.h"
#include "libcore/base/utf8.h"
#include "libcore/io/container_error.h"
#include "libcore/io/json_cursor.h"

namespace ds {
namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr int kSkippedDepth = 128;
constexpr std::size_t kShortEntry = 96;  // bytes of a tensor's entry: few are shorter
constexpr std::string_view kMetadataKey = "__metadata__";

using Defect = ContainerDefect;

[[noreturn]] void bad(const std::string& name, Defect defect, const std::string& what,
                      const std::string& hint = "", const std::string& subject = "") {
  throw ContainerError(defect, name + ": " + what, hint, subject);
}

constexpr const char* kCutHint = "the file was cut off: download or copy it again";

// Files that often stand where a safetensors file should.
std::string what_else(std::string_view file) {
  if (file.starts_with("version https://git-lfs")) {
    return "this is a Git LFS pointer, not the file itself: run 'git lfs pull'";
  }
  if (file.starts_with("PK\x03\x04")) {
    return "this is a zip archive (a PyTorch .bin file?): save the model as safetensors";
  }
  if (file.starts_with("GGUF")) return "this is a GGUF file";
  if (file.starts_with("<!DOCTYPE") || file.starts_with("<html")) {
    return "this is a web page: the download failed or needed a login";
  }
  return "the file is no safetensors file or is damaged";
}

class HeaderReader {
 public:
  HeaderReader(std::string_view text, const std::string& name) : cursor_(text), name_(name) {
    header_.tensors.reserve(text.size() / kShortEntry);
    header_.extents.reserve(text.size() / kShortEntry * 2);
    ranks_.reserve(text.size() / kShortEntry);
  }

  SafetensorsHeader read() {
    bool metadata_seen = false;
    if (cursor_.peek() != '{') cursor_.fail("the header is not a JSON object");
    cursor_.expect('{');
    if (!cursor_.take('}')) {
      do {
        const std::string_view key = cursor_.string(scratch_);
        if (key == kMetadataKey) {
          if (metadata_seen) {
            bad(name_, Defect::kDuplicateName, "the header has the key \"__metadata__\" twice");
          }
          metadata_seen = true;
          cursor_.expect(':');
          metadata();
        } else {
          TensorInfo& tensor = header_.tensors.emplace_back();
          // A key with escapes lies in the scratch string, which the next one overwrites.
          tensor.name = key.data() == scratch_.data() ? header_.unescaped.emplace_back(key) : key;
          cursor_.expect(':');
          entry(tensor);
        }
      } while (cursor_.take(','));
      cursor_.expect('}');
    }
    cursor_.expect_end();
    place_shapes();
    return std::move(header_);
  }
  // What a syntax error is about, and the tensor concerned.
  Defect defect() const { return defect_; }
  std::string subject() const {
    return defect_ == Defect::kBadMetadata || header_.tensors.empty()
               ? ""
               : std::string(header_.tensors.back().name);
  }

 private:
  void metadata() {
    if (cursor_.take_null()) return;
    defect_ = Defect::kBadMetadata;
    if (cursor_.peek() != '{') {
      cursor_.fail(found() + ", \"__metadata__\" must be an object of strings");
    }
    cursor_.expect('{');
    if (cursor_.take('}')) {
      defect_ = Defect::kHeaderSyntax;
      return;
    }
    std::string key_scratch;
    do {
      const std::string key(cursor_.string(key_scratch));
      cursor_.expect(':');
      if (cursor_.peek() != '"') {
        cursor_.fail(found() + " for the metadata key " + quote_text(key) +
                     ", its value must be a string");
      }
      const auto [place, fresh] = header_.metadata.try_emplace(key, cursor_.string(scratch_));
      if (!fresh) {
        bad(name_, Defect::kDuplicateName, "the metadata has the key " + quote_text(key) + " twice",
            "", key);
      }
    } while (cursor_.take(','));
    cursor_.expect('}');
    defect_ = Defect::kHeaderSyntax;
  }

  std::string found() {
    const char* kind = cursor_.kind();
    return "found " + std::string(kind != nullptr ? kind : "no JSON value");
  }

  void entry(TensorInfo& tensor) {
    const auto here = [&tensor] { return " in the entry of tensor " + quote_text(tensor.name); };
    if (cursor_.peek() != '{') cursor_.fail(found() + ", an object is needed" + here());
    cursor_.expect('{');
    bool dtype = false;
    bool shape = false;
    bool offsets = false;
    const auto once = [&](bool& seen, const char* field) {
      if (seen) cursor_.fail(std::string("the field ") + field + " is there twice" + here());
      seen = true;
    };
    if (!cursor_.take('}')) {
      do {
        const std::string_view field = cursor_.string(scratch_);
        // `field` may lie in scratch_: compare before reading on.
        if (field == "dtype") {
          once(dtype, "dtype");
          cursor_.expect(':');
          if (cursor_.peek() != '"') cursor_.fail(found() + ", dtype must be a string" + here());
          const std::string_view text = cursor_.string(scratch_);
          if (!kernels::parse_dtype(text, tensor.dtype)) {
            defect_ = Defect::kUnknownDtype;
            cursor_.fail("unknown dtype " + quote_text(text) + here());
          }
        } else if (field == "shape") {
          once(shape, "shape");
          cursor_.expect(':');
          ranks_.push_back(static_cast<std::uint32_t>(read_shape(tensor.name)));
        } else if (field == "data_offsets") {
          once(offsets, "data_offsets");
          cursor_.expect(':');
          cursor_.expect('[');
          tensor.begin = cursor_.unsigned_integer();
          cursor_.expect(',');
          tensor.end = cursor_.unsigned_integer();
          cursor_.expect(']');
        } else {
          cursor_.expect(':');
          cursor_.skip_value(kSkippedDepth);
        }
      } while (cursor_.take(','));
      cursor_.expect('}');
    }
    if (!dtype || !shape || !offsets) {
      const char* missing = !dtype ? "dtype" : !shape ? "shape" : "data_offsets";
      cursor_.fail(std::string("the field ") + missing + " is missing" + here());
    }
  }

  // The extents go to the header's; returns how many there are.
  std::size_t read_shape(std::string_view tensor) {
    cursor_.expect('[');
    if (cursor_.take(']')) return 0;
    const std::size_t first = header_.extents.size();
    do {
      const std::uint64_t extent = cursor_.unsigned_integer();
      if (extent > static_cast<std::uint64_t>(INT64_MAX)) {
        cursor_.fail("a dimension above 2^63 - 1 in the shape of tensor " + quote_text(tensor));
      }
      header_.extents.push_back(static_cast<std::int64_t>(extent));
    } while (cursor_.take(','));
    cursor_.expect(']');
    return header_.extents.size() - first;
  }

  // Only when all extents are read do they stay where they are.
  void place_shapes() {
    std::span<const std::int64_t> left = header_.extents;
    for (std::size_t i = 0; i < header_.tensors.size(); ++i) {
      header_.tensors[i].shape = left.first(ranks_[i]);
      left = left.subspan(ranks_[i]);
    }
  }

  JsonCursor cursor_;
  const std::string& name_;
  std::string scratch_;
  SafetensorsHeader header_;
  std::vector<std::uint32_t> ranks_;  // of each tensor
  Defect defect_ = Defect::kHeaderSyntax;
};

void check_names(SafetensorsHeader& header, const std::string& name) {
  const auto& tensors = header.tensors;
  header.by_name.resize(tensors.size());
  std::iota(header.by_name.begin(), header.by_name.end(), 0u);
  // Writers sort by dtype, then by name: a few ascending runs.
  sort_runs(header.by_name,
            [&](std::uint32_t a, std::uint32_t b) { return tensors[a].name < tensors[b].name; });
  const auto twice = std::adjacent_find(
      header.by_name.begin(), header.by_name.end(),
      [&](std::uint32_t a, std::uint32_t b) { return tensors[a].name == tensors[b].name; });
  if (twice != header.by_name.end()) {
    bad(name, Defect::kDuplicateName,
        "the header has the key " + quote_text(tensors[*twice].name) + " twice",
        "one of two tensors of that name was lost when the file was written: write it again",
        std::string(tensors[*twice].name));
  }
}

// The rules on offsets, in offset order; returns the end of the last tensor.
std::uint64_t check_offsets(const std::vector<TensorInfo>& tensors, const std::string& name) {
  std::uint64_t end = 0;
  const TensorInfo* previous = nullptr;
  for (const TensorInfo& tensor : tensors) {
    const auto where = [&] {
      return fmt::format("tensor {} at data offsets [{}, {}]", quote_text(tensor.name),
                         tensor.begin, tensor.end);
    };
    const auto defective = [&](Defect defect, const std::string& what) {
      bad(name, defect, what, "", std::string(tensor.name));
    };
    if (tensor.end < tensor.begin) {
      defective(Defect::kOffsetsReversed, where() + " ends before it begins");
    }
    if (tensor.begin != end) {
      if (tensor.begin > end) {
        defective(Defect::kHole,
                  fmt::format("{} leaves a hole of {} bytes after {}", where(), tensor.begin - end,
                              previous != nullptr ? "tensor " + quote_text(previous->name)
                                                  : std::string("the header")));
      }
      defective(Defect::kOverlap,
                fmt::format("{} overlaps tensor {} at [{}, {}]", where(),
                            quote_text(previous->name), previous->begin, previous->end));
    }
    end = tensor.end;
    std::uint64_t bytes = 0;
    bool whole = true;
    const auto type = [&] {
      return fmt::format("{} {}", kernels::dtype_name(tensor.dtype), shape_text(tensor.shape));
    };
    if (!tensor_bytes(tensor.dtype, tensor.shape, bytes, whole)) {
      defective(Defect::kSizeOverflow, fmt::format("tensor {}: the size of {} overflows 64 bits",
                                                   quote_text(tensor.name), type()));
    }
    if (!whole) {
      defective(Defect::kPartialBytes, fmt::format("tensor {}: {} does not fill whole bytes",
                                                   quote_text(tensor.name), type()));
    }
    if (bytes != tensor.bytes()) {
      defective(Defect::kSizeMismatch, fmt::format("{} has {} bytes, {} needs {}", where(),
                                                   tensor.bytes(), type(), bytes));
    }
    previous = &tensor;
  }
  return end;
}

}  // namespace

bool tensor_bytes(DType dtype, std::span<const std::int64_t> shape, std::uint64_t& bytes,
                  bool& whole) {
  std::uint64_t bits = 1;
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bits, static_cast<std::uint64_t>(extent), &bits)) {
      return false;
    }
  }
  const auto width = static_cast<std::uint64_t>(kernels::dtype_bits(dtype));
  if (__builtin_mul_overflow(bits, width, &bits)) return false;
  whole = bits % 8 == 0;
  bytes = bits / 8;
  return true;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  constexpr std::size_t kShown = 16;
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size() && i < kShown; ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", ", shape[i]);
  }
  if (shape.size() > kShown) text += fmt::format(", ... {} dimensions", shape.size());
  return text + "]";
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& name) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (bytes.empty()) bad(name, Defect::kTooShort, "the file is empty", kCutHint);
  if (bytes.size() < kLengthBytes) {
    bad(name, Defect::kTooShort,
        fmt::format("truncated: a header length wants 8 bytes, file has {}", bytes.size()),
        kCutHint);
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<std::uint64_t>(file[i]) << (8 * i);
  }
  if (length > kLargestSafetensorsHeader) {
    bad(name, Defect::kHeaderTooLong,
        fmt::format("the header length is {}, at most {} is allowed", length,
                    kLargestSafetensorsHeader),
        what_else(bytes));
  }
  if (kLengthBytes + length > bytes.size()) {
    bad(name, Defect::kHeaderPastEnd,
        fmt::format("truncated: header wants {} bytes, file has {}", kLengthBytes + length,
                    bytes.size()),
        kCutHint);
  }
  const std::string_view text = bytes.substr(kLengthBytes, length);
  if (const std::size_t at = utf8_error(text); at != kUtf8Valid) {
    bad(name, Defect::kHeaderNotUtf8,
        fmt::format("the header is not UTF-8 at byte {} of the file", at + kLengthBytes));
  }
  SafetensorsHeader header;
  HeaderReader reader(text, name);
  try {
    header = reader.read();
  } catch (const JsonSyntaxError& error) {
    bad(name, reader.defect(),
        fmt::format("bad header at byte {} of the file: {}", error.offset + kLengthBytes,
                    error.what()),
        "", reader.subject());
  }
  auto& tensors = header.tensors;
  const auto by_offset = [](const TensorInfo& a, const TensorInfo& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  };
  if (!std::is_sorted(tensors.begin(), tensors.end(), by_offset)) {
    std::stable_sort(tensors.begin(), tensors.end(), by_offset);
  }
  check_names(header, name);
  const std::uint64_t end = check_offsets(tensors, name);
  const std::uint64_t available = bytes.size() - kLengthBytes - length;
  if (end > available) {
    std::uint64_t wanted = 0;
    const std::string total = __builtin_add_overflow(end, kLengthBytes + length, &wanted)
                                  ? std::string("more than 2^64")
                                  : fmt::format("{}", wanted);
    bad(name, Defect::kTruncated,
        fmt::format("truncated: header wants {} bytes, file has {}", total, bytes.size()),
        kCutHint);
  }
  if (end < available) {
    bad(name, Defect::kTrailing,
        fmt::format("{} trailing bytes: header wants {} bytes, file has {}", available - end,
                    kLengthBytes + length + end, bytes.size()),
        "something was appended to the file, or its header belongs to another file");
  }
  for (TensorInfo& tensor : tensors) {
    tensor.begin += kLengthBytes + length;
    tensor.end += kLengthBytes + length;
  }
  return header;
}

}  // namespace ds
