#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/utf8.h"
#include "libcore/io/gguf.h"
#include "libcore/io/safetensors_header.h"

namespace ds {
namespace {

using Defect = GgufDefect;

constexpr std::uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr std::size_t kLongestKey = 65535;
constexpr std::size_t kLongestTensorName = 63;  // GGML_MAX_NAME counts the final zero
constexpr std::uint32_t kMostDimensions = 4;
// Keys or tensors. The largest models have some 2,000 tensors, before experts were stacked 60,000.
constexpr std::uint64_t kMostEntries = 1'000'000;
// Smallest entries, to judge a count before anything is reserved.
constexpr std::uint64_t kSmallestKey = 8 + 1 + 4 + 1;
constexpr std::uint64_t kSmallestTensor = 8 + 1 + 4 + 4 + 8;
constexpr std::uint64_t kLargestAlignment = std::uint64_t{1} << 30;

constexpr const char* kCutHint = "the file was cut off: download or copy it again";

class HeaderReader {
 public:
  HeaderReader(std::span<const std::byte> file, const std::string& name)
      : file_(file), name_(name) {}

  GgufHeader read() {
    read_start();
    for (std::uint64_t i = 0; i < key_count_; ++i) read_key(i);
    order_keys();
    read_alignment();
    for (std::uint64_t i = 0; i < tensor_count_; ++i) read_tensor(i);
    order_tensors();
    place_data();
    return std::move(header_);
  }

 private:
  [[noreturn]] void bad(Defect defect, const std::string& what, const std::string& hint = "",
                        const std::string& subject = "") const {
    throw GgufError(defect, name_ + ": " + what, hint, subject);
  }

  // The next `size` bytes; `what` names them.
  std::span<const std::byte> take(std::uint64_t size, const std::string& what) {
    const std::uint64_t left = file_.size() - at_;
    if (size > left) {
      bad(Defect::kTruncated,
          fmt::format("truncated: {} at byte {} wants {} bytes, {} are left", what, at_, size,
                      left),
          kCutHint);
    }
    const auto bytes = file_.subspan(at_, size);
    at_ += size;
    return bytes;
  }
  template <class T>
  T number(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::string_view text(std::uint64_t limit, const std::string& what) {
    const auto size = number<std::uint64_t>("the length of " + what);
    if (size > limit) {
      bad(Defect::kText,
          fmt::format("the length of {} is {}, at most {} is allowed", what, size, limit));
    }
    const auto bytes = take(size, what);
    const std::string_view view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (utf8_error(view) != kUtf8Valid)
      bad(Defect::kText, what + " is not UTF-8: " + quote_text(view));
    return view;
  }

  void read_start() {
    if (file_.empty()) bad(Defect::kTruncated, "the file is empty", kCutHint);
    if (file_.size() < 4)
      bad(Defect::kTruncated, "truncated: not even the 4 bytes \"GGUF\" are there", kCutHint);
    if (number<std::uint32_t>("the magic") != kMagic) {
      const std::string_view begin(reinterpret_cast<const char*>(file_.data()),
                                   std::min<std::size_t>(file_.size(), 64));
      bad(Defect::kMagic,
          "a GGUF file begins with \"GGUF\", this one with " + quote_text(begin.substr(0, 4)),
          begin.starts_with("vers") ? "this is a Git LFS pointer: run 'git lfs pull'"
                                    : "the file is no GGUF file or is damaged");
    }
    header_.version = number<std::uint32_t>("the version");
    if (header_.version != 0 && (header_.version & 0xffffU) == 0) {
      bad(Defect::kVersion, "the file is big-endian, only little-endian files are supported",
          "make it again on the machine at hand");
    }
    if (header_.version != 2 && header_.version != 3) {
      bad(Defect::kVersion, fmt::format("GGUF version {}, needed is 2 or 3", header_.version),
          header_.version == 1 ? "convert it again: version 1 was in use for a week of 2023" : "");
    }
    tensor_count_ = number<std::uint64_t>("the number of tensors");
    key_count_ = number<std::uint64_t>("the number of keys");
    const std::uint64_t left = file_.size() - at_;
    check_count(key_count_, left, kSmallestKey, "keys");
    check_count(tensor_count_, left, kSmallestTensor, "tensors");
    header_.keys.reserve(key_count_);
    header_.tensors.reserve(tensor_count_);
  }
  void check_count(std::uint64_t count, std::uint64_t left, std::uint64_t smallest,
                   const char* what) const {
    // Entries are larger in memory than in the file, but only by a constant factor.
    if (count > left / smallest) {
      bad(Defect::kCount,
          fmt::format("truncated: the header counts {} {}, the {} bytes left hold at most {}",
                      count, what, left, left / smallest),
          kCutHint);
    }
    if (count > kMostEntries) {
      bad(Defect::kCount,
          fmt::format("the header counts {} {}, at most {} are read", count, what, kMostEntries));
    }
  }

  GgufValueType value_type(const std::string& what) {
    const auto code = number<std::uint32_t>("the type of " + what);
    if (code > static_cast<std::uint32_t>(GgufValueType::kF64)) {
      bad(Defect::kValue, fmt::format("{} has the unknown value type {}", what, code));
    }
    return static_cast<GgufValueType>(code);
  }

  void read_key(std::uint64_t index) {
    GgufKey key;
    key.name = text(kLongestKey, fmt::format("the name of key {} of {}", index + 1, key_count_));
    if (key.name.empty())
      bad(Defect::kText, fmt::format("key {} of {} has no name", index + 1, key_count_));
    const std::string what = "key " + quote_text(key.name);
    key.type = value_type(what);
    key.element = key.type;
    if (key.type == GgufValueType::kArray) {
      key.element = value_type("the items of " + what);
      if (key.element == GgufValueType::kArray)
        bad(Defect::kValue, what + " is an array of arrays");
      key.count = number<std::uint64_t>("the number of items of " + what);
      key.bytes = items(key, what);
    } else if (key.type == GgufValueType::kString) {
      key.bytes = std::as_bytes(std::span(text(UINT64_MAX, "the value of " + what)));
    } else {
      key.bytes = take(gguf_scalar_bytes(key.type), what);
    }
    if (key.element == GgufValueType::kBool) {
      const auto odd = std::find_if(key.bytes.begin(), key.bytes.end(),
                                    [](std::byte b) { return std::to_integer<int>(b) > 1; });
      if (odd != key.bytes.end()) {
        bad(Defect::kValue,
            fmt::format("{} is a bool and holds the byte {}", what, std::to_integer<int>(*odd)));
      }
    }
    header_.keys.push_back(std::move(key));
  }

  std::span<const std::byte> items(const GgufKey& key, const std::string& what) {
    const std::uint64_t begin = at_;
    const std::uint64_t smallest =
        key.element == GgufValueType::kString ? 8 : gguf_scalar_bytes(key.element);
    const std::uint64_t left = file_.size() - at_;
    if (key.count > left / smallest) {
      bad(Defect::kTruncated,
          fmt::format("truncated: {} counts {} items of type {}, {} bytes are left", what,
                      key.count, gguf_value_type_name(key.element), left),
          kCutHint);
    }
    if (key.element == GgufValueType::kString) {
      const std::string item = "an item of " + what;
      for (std::uint64_t i = 0; i < key.count; ++i) text(UINT64_MAX, item);
    } else {
      take(key.count * smallest, what);
    }
    return file_.subspan(begin, at_ - begin);
  }

  template <class T>
  std::vector<std::uint32_t> by_name(const std::vector<T>& list, const char* what) const {
    std::vector<std::uint32_t> order(list.size());
    std::iota(order.begin(), order.end(), 0U);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return list[a].name < list[b].name; });
    const auto twice = std::adjacent_find(
        order.begin(), order.end(),
        [&](std::uint32_t a, std::uint32_t b) { return list[a].name == list[b].name; });
    if (twice != order.end()) {
      bad(Defect::kDuplicate,
          fmt::format("the {} {} is there twice", what, quote_text(list[*twice].name)), "",
          list[*twice].name);
    }
    return order;
  }
  void order_keys() { header_.key_order = by_name(header_.keys, "key"); }
  void order_tensors() { header_.tensor_order = by_name(header_.tensors, "tensor"); }

  void read_alignment() {
    for (const GgufKey& key : header_.keys) {
      if (key.name != "general.alignment") continue;
      if (key.type != GgufValueType::kU32) {
        bad(Defect::kAlignment, fmt::format("key general.alignment is of type {}, needed is u32",
                                            gguf_value_type_name(key.type)));
      }
      header_.alignment = static_cast<std::uint64_t>(key.integer());
    }
    const std::uint64_t alignment = header_.alignment;
    if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kLargestAlignment) {
      bad(Defect::kAlignment,
          fmt::format("key general.alignment is {}, needed is a power of two up to {}", alignment,
                      kLargestAlignment));
    }
  }

  void read_tensor(std::uint64_t index) {
    GgufTensor tensor;
    tensor.name = text(kLongestTensorName,
                       fmt::format("the name of tensor {} of {}", index + 1, tensor_count_));
    if (tensor.name.empty())
      bad(Defect::kText, fmt::format("tensor {} of {} has no name", index + 1, tensor_count_));
    const std::string what = "tensor " + quote_text(tensor.name);
    const auto rank = number<std::uint32_t>("the rank of " + what);
    if (rank > kMostDimensions) {
      bad(Defect::kTensor,
          fmt::format("{} has {} dimensions, at most {} are allowed", what, rank, kMostDimensions));
    }
    for (std::uint32_t i = 0; i < rank; ++i) {
      const auto extent = number<std::uint64_t>("a dimension of " + what);
      if (extent == 0 || extent > static_cast<std::uint64_t>(INT64_MAX)) {
        bad(Defect::kTensor,
            fmt::format("dimension {} of {} is {}, needed is 1 to 2^63 - 1", i + 1, what, extent));
      }
      tensor.shape.insert(tensor.shape.begin(), static_cast<std::int64_t>(extent));
    }
    tensor.type = number<std::uint32_t>("the type of " + what);
    const GgmlTypeInfo* type = ggml_type_info(tensor.type);
    if (type == nullptr) {
      bad(Defect::kUnknownType, fmt::format("{} has the unknown type {}", what, tensor.type),
          "a type newer than this program, one that ggml has removed, or a damaged file",
          tensor.name);
    }
    tensor.begin = number<std::uint64_t>("the offset of " + what);
    const std::int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (row % type->block_values != 0) {
      bad(Defect::kTensor,
          fmt::format("{} is {} with rows of {} values, a multiple of {} is needed", what,
                      type->name, row, type->block_values),
          "", tensor.name);
    }
    std::int64_t blocks = 1;
    bool overflow = false;
    for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
      const bool last = i + 1 == tensor.shape.size();
      const std::int64_t extent = last ? row / type->block_values : tensor.shape[i];
      overflow = overflow || __builtin_mul_overflow(blocks, extent, &blocks);
    }
    std::int64_t bytes = 0;
    std::int64_t values = 0;
    if (overflow || __builtin_mul_overflow(blocks, type->block_bytes, &bytes) ||
        __builtin_mul_overflow(blocks, type->block_values, &values)) {
      bad(Defect::kTensor, fmt::format("the size of {} {} {} overflows 63 bits", what, type->name,
                                       shape_text(tensor.shape)));
    }
    tensor.end = static_cast<std::uint64_t>(bytes);  // still a size: place_data() adds the place
    header_.tensors.push_back(std::move(tensor));
  }

  // The next multiple of the alignment; `at` is below 2^63.
  std::uint64_t padded(std::uint64_t at) const {
    return (at + header_.alignment - 1) / header_.alignment * header_.alignment;
  }

  void place_data() {
    header_.data_begin = padded(at_);
    std::uint64_t expected = 0;  // from the start of the data
    std::uint64_t end = 0;
    const std::uint64_t available =
        file_.size() > header_.data_begin ? file_.size() - header_.data_begin : 0;
    for (GgufTensor& tensor : header_.tensors) {
      if (tensor.begin != expected) {
        const bool overlap = tensor.begin < expected;
        const bool misaligned = tensor.begin % header_.alignment != 0;
        bad(misaligned ? Defect::kMisaligned
            : overlap  ? Defect::kOverlap
                       : Defect::kHole,
            fmt::format("the data of tensor {} begins at {}, needed is {}, right behind the tensor "
                        "before it at an alignment of {}",
                        quote_text(tensor.name), tensor.begin, expected, header_.alignment),
            overlap ? "tensors overlap: the file is damaged"
                    : "the file has a hole, which llama.cpp refuses too",
            tensor.name);
      }
      const std::uint64_t size = tensor.end;
      if (tensor.begin > available || size > available - tensor.begin) {
        bad(Defect::kTruncated,
            fmt::format("truncated: the data of tensor {} wants bytes {} to {}, the file has {}",
                        quote_text(tensor.name), header_.data_begin + tensor.begin,
                        header_.data_begin + tensor.begin + size, file_.size()),
            kCutHint, tensor.name);
      }
      tensor.begin += header_.data_begin;
      tensor.end = tensor.begin + size;
      end = tensor.end - header_.data_begin;
      expected = padded(end);
    }
    header_.trailing_bytes = available > expected ? available - expected : 0;
  }

  std::span<const std::byte> file_;
  const std::string& name_;
  std::uint64_t at_ = 0;
  std::uint64_t key_count_ = 0, tensor_count_ = 0;
  GgufHeader header_;
};

}  // namespace

GgufHeader parse_gguf_header(std::span<const std::byte> file, const std::string& name) {
  return HeaderReader(file, name).read();
}

}  // namespace ds
