// The safetensors container: a reader that trusts nothing and a writer whose bytes equal the
// reference library's (reference/formats.md section 1).
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/view.h"
#include "libcore/base/mapped_file.h"

namespace ds {

using kernels::ConstView;
using kernels::DType;

// Largest header that is read or written (the reference's MAX_HEADER_SIZE).
inline constexpr std::uint64_t kLargestSafetensorsHeader = 100'000'000;

// The extents of a tensor, outermost first; equal when they have the same values.
class ShapeView : public std::span<const std::int64_t> {
 public:
  // NOLINTNEXTLINE(modernize-use-equals-default): clang-tidy 14 takes it for a default constructor
  using std::span<const std::int64_t>::span;
  // NOLINTNEXTLINE(google-explicit-constructor): as of a span
  ShapeView(std::span<const std::int64_t> extents) : span(extents) {}
  std::vector<std::int64_t> copy() const { return {begin(), end()}; }
  friend bool operator==(const ShapeView& a, const ShapeView& b) {
    return std::ranges::equal(a, b);
  }
};

// One entry of a header; name and shape lie in what was read (SafetensorsFile, SafetensorsHeader)
// and are valid as long as it lives. Offsets are relative to the file's first byte and were checked
// to lie in it.
struct TensorInfo {
  std::string_view name;
  DType dtype = DType::kF32;
  ShapeView shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t bytes() const { return end - begin; }
};

struct SafetensorsHeader;

// A mapped, validated safetensors file. Opening reads the header only; every rule of
// reference/formats.md section 1 is checked before anything is allocated by its say. Throws
// Error(kIo) when the file cannot be opened and Error(kBadInput) naming file, tensor, numbers.
// Stricter than the reference: duplicate keys anywhere in the known part of the header are refused
// by name, and so are dimensions above 2^63 - 1.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);
  SafetensorsFile();  // without tensors
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::filesystem::path& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const;  // in offset order
  const std::map<std::string, std::string>& metadata() const;
  const TensorInfo* find(std::string_view name) const;  // nullptr when absent
  // Indices of tensors() in name order.
  const std::vector<std::uint32_t>& name_order() const;
  // The tensor's bytes in the mapping; valid while this object lives. Not necessarily aligned.
  const std::byte* data(const TensorInfo& tensor) const;
  // Same as a view. Throws Error(kBadInput) for rank > 4 or when the data is misaligned for the
  // dtype (callers copy such tensors with data()).
  ConstView view(const TensorInfo& tensor) const;
  static bool aligned(const TensorInfo& tensor) {
    const auto bits = static_cast<std::uint64_t>(kernels::dtype_bits(tensor.dtype));
    return bits < 8 || tensor.begin % (bits / 8) == 0;  // the mapping itself is page-aligned
  }
  // The whole mapping, for advice to the kernel.
  const MappedFile& file() const { return file_; }

 private:
  SafetensorsFile(const std::filesystem::path& path, MappedFile file);
  std::filesystem::path path_;
  MappedFile file_;
  std::unique_ptr<const SafetensorsHeader> header_;
};

// A tensor to write: its bytes come from `data` (contiguous), which must stay valid during the call
// and may be null when the tensor has no elements.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
};

// How a file of these tensors begins, known before any of their data.
struct SafetensorsLayout {
  std::string start;                 // the eight bytes of the length and the padded header
  std::vector<std::uint64_t> sizes;  // bytes of each tensor, in the order of the file
  std::uint64_t data_bytes = 0;
};
// Puts `tensors` into the order of the file (see write_safetensors, whose errors it throws; data
// is not looked at). `path` is the file's name in messages.
SafetensorsLayout layout_safetensors(const std::filesystem::path& path,
                                     std::vector<TensorToWrite>& tensors,
                                     const std::map<std::string, std::string>& metadata);

// Writes atomically (temporary file, flush to disk, rename). Order, header bytes and padding as the
// reference's save_file: dtype rank descending, then name ascending; metadata keys sorted. Streams
// the data: nothing is copied. Throws Error(kIo), or Error(kInternal) for tensors that make no
// valid file (duplicate or reserved name, negative dimension, missing data, overflow).
void write_safetensors(const std::filesystem::path& path, std::vector<TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace ds
