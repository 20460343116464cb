// The GGUF container: a reader that trusts nothing, and the layout of files to write
// (reference/formats.md section 8; ggml docs/gguf.md).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/mapped_file.h"

namespace ds {

// Storage type of a tensor, by its number in the file (ggml_type).
enum class GgmlType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ80 = 8,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
};

// Facts of a type: "Q4_K", values and bytes of a block (1 and the element's size when it has no
// blocks).
struct GgmlTypeInfo {
  std::uint32_t number = 0;
  const char* name = "";
  std::int64_t block_values = 1;
  std::int64_t block_bytes = 0;
};
// Every type that ggml defines and that we know the size of; nullptr for another number.
const GgmlTypeInfo* ggml_type_info(std::uint32_t number);
inline const GgmlTypeInfo* ggml_type_info(GgmlType type) {
  return ggml_type_info(static_cast<std::uint32_t>(type));
}

enum class GgufValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
const char* gguf_value_type_name(GgufValueType type);  // "u32", "string", ...
// Bytes of a scalar; 0 for strings, arrays and unknown types.
std::size_t gguf_scalar_bytes(GgufValueType type);

// A key and its value. The value stays where it is in the file's bytes (checked when the file was
// opened); nothing is copied. An array is never nested. Accessors throw Error(kBadInput) naming
// the key, the type found and the type needed.
struct GgufKey {
  std::string name;
  GgufValueType type = GgufValueType::kU32;
  GgufValueType element = GgufValueType::kU32;  // of an array; equal to `type` otherwise
  std::uint64_t count = 1;                      // of an array
  std::span<const std::byte> bytes;  // the scalar, the string's text, or the array's items

  bool is_array() const { return type == GgufValueType::kArray; }
  bool is_integer() const;       // a scalar of an integer type
  bool is_number() const;        // a scalar of an integer or floating-point type
  std::int64_t integer() const;  // refuses u64 values above 2^63 - 1
  double number() const;         // integers too
  bool boolean() const;
  std::string_view text() const;
  std::vector<std::string_view> texts() const;
  std::vector<std::int64_t> integers() const;
  // For people: the value, or the length and first items of an array, at most about `limit` bytes.
  std::string summary(std::size_t limit = 80) const;
};

// A tensor of a file. Its bytes were checked to lie in the file.
struct GgufTensor {
  std::string name;
  std::uint32_t type = 0;  // a number that ggml_type_info() knows
  std::vector<std::int64_t>
      shape;                // slowest first, as everywhere else here (the file has the reverse)
  std::uint64_t begin = 0;  // from the file's first byte
  std::uint64_t end = 0;
  std::uint64_t bytes() const { return end - begin; }
  bool is(GgmlType wanted) const { return type == static_cast<std::uint32_t>(wanted); }
  std::string type_name() const { return ggml_type_info(type)->name; }
};

// What stands before the data.
struct GgufHeader {
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;
  std::uint64_t data_begin = 0;     // from the file's first byte
  std::vector<GgufKey> keys;        // in the file's order
  std::vector<GgufTensor> tensors;  // in the file's order, which is that of their data
  std::vector<std::uint32_t> key_order, tensor_order;  // indices by name ascending
  // Bytes behind the last tensor beyond its padding: harmless, but nobody knows what they are.
  std::uint64_t trailing_bytes = 0;
};

// What is wrong with a file's bytes, for programs that tell one defect from another.
enum class GgufDefect {
  kMagic,        // it does not begin with "GGUF"
  kVersion,      // a version that is not read, or big-endian
  kCount,        // more keys or tensors than the file can hold
  kTruncated,    // the file ends inside the header or before its tensors do
  kText,         // a name or text that is not UTF-8, empty or too long
  kValue,        // a value type that is unknown, nested arrays, a bool that is neither 0 nor 1
  kDuplicate,    // a key or tensor twice
  kAlignment,    // general.alignment
  kTensor,       // rank, dimensions or size of a tensor
  kUnknownType,  // a tensor type that ggml does not define
  kOverlap,      // a tensor begins before the one before it ends
  kMisaligned,   // a tensor does not begin at a multiple of the alignment
  kHole,         // bytes between two tensors belong to none
};
class GgufError : public Error {
 public:
  // `subject`: the tensor or key concerned, may be empty.
  GgufError(GgufDefect defect, const std::string& message, std::string hint, std::string subject)
      : Error(ExitCode::kBadInput, message, std::move(hint)),
        defect_(defect),
        subject_(std::move(subject)) {}
  GgufDefect defect() const { return defect_; }
  const std::string& subject() const { return subject_; }

 private:
  GgufDefect defect_;
  std::string subject_;
};

// Checks and reads a header; `name` is the file's name in messages. The keys point into `file`.
// Refused, each with its own message: another magic or version (1, big-endian), a count or length
// that leads out of the file, text that is no UTF-8, a duplicate key or tensor name, nested arrays,
// unknown value or tensor types, booleans other than 0 and 1, more than 4 dimensions, a dimension
// of 0 or a size beyond 63 bits, rows that are no whole blocks, an alignment that is no power of
// two, tensor data that does not follow the tensor before it at the next multiple of the alignment
// (ggml refuses that too) or leads out of the file. Throws GgufError, which is Error(kBadInput).
GgufHeader parse_gguf_header(std::span<const std::byte> file, const std::string& name);

// One mapped file. Opening reads the header only. Throws Error(kIo), Error(kBadInput).
class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const GgufHeader& header() const { return header_; }
  const std::vector<GgufKey>& keys() const { return header_.keys; }
  const std::vector<GgufTensor>& tensors() const { return header_.tensors; }
  const GgufKey* find_key(std::string_view name) const;  // nullptr when absent
  const GgufTensor* find(std::string_view name) const;   // nullptr when absent
  // In the mapping; valid while this object lives. Not necessarily aligned.
  const std::byte* data(const GgufTensor& tensor) const { return file_.data() + tensor.begin; }
  const MappedFile& file() const { return file_; }

 private:
  std::filesystem::path path_;
  MappedFile file_;
  GgufHeader header_;
};

// A whole model: one file, or all files of a split (NAME-00001-of-0000N.gguf, keys in the first).
class GgufModel {
 public:
  // `path` may be any file of a split, or a folder that holds the files of one model. Throws
  // Error(kIo) for a missing file, Error(kBadInput) when the parts do not belong together
  // (split.no, split.count, split.tensors.count, a tensor in two of them).
  static GgufModel open(const std::filesystem::path& path);

  struct Entry {
    const GgufFile* file = nullptr;
    const GgufTensor* tensor = nullptr;
  };
  const std::vector<std::unique_ptr<GgufFile>>& files() const { return files_; }
  const GgufFile& first() const { return *files_.front(); }
  const GgufKey* find_key(std::string_view name) const { return first().find_key(name); }
  const std::vector<Entry>& entries() const { return entries_; }  // by name ascending
  Entry find(std::string_view name) const;                        // nullptr tensor when absent

 private:
  std::vector<std::unique_ptr<GgufFile>> files_;
  std::vector<Entry> entries_;
};

// The entry of that name among entries by name ascending; nullptr tensor when absent.
GgufModel::Entry find_gguf_tensor(const std::vector<GgufModel::Entry>& entries,
                                  std::string_view name);

// The key-value part of a file to write, in the order of the calls.
class GgufKeyWriter {
 public:
  void u16(std::string_view key, std::uint16_t value);
  void u32(std::string_view key, std::uint32_t value);
  void i32(std::string_view key, std::int32_t value);
  void f32(std::string_view key, float value);
  void boolean(std::string_view key, bool value);
  void text(std::string_view key, std::string_view value);
  // Arrays must not be empty (readers refuse them).
  void texts(std::string_view key, std::span<const std::string> values);
  void i32s(std::string_view key, std::span<const std::int32_t> values);

  std::uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, GgufValueType type);
  std::string bytes_;
  std::uint64_t count_ = 0;
};

struct GgufTensorToWrite {
  std::string name;
  GgmlType type = GgmlType::kF32;
  std::vector<std::int64_t> shape;  // slowest first
};
// Bytes of its data. Throws Error(kInternal) when the rows are no whole blocks or it overflows.
std::uint64_t gguf_tensor_bytes(const GgufTensorToWrite& tensor);

// Where everything goes in a file of these keys and tensors, in the given order, aligned to 32.
struct GgufLayout {
  std::string start;                   // the file's bytes before the data, padding included
  std::vector<std::uint64_t> offsets;  // of each tensor, from the file's first byte
  std::uint64_t bytes = 0;             // of the whole file; what no tensor covers is zero
};
// Throws Error(kInternal) for what no reader would take: a name of 64 bytes or more, twice the same
// name, more than 4 dimensions.
GgufLayout layout_gguf(const GgufKeyWriter& keys, const std::vector<GgufTensorToWrite>& tensors);

// PREFIX of "PREFIX-00002-of-00005.gguf" and the two numbers, 1 <= part <= parts.
struct GgufSplitName {
  std::string prefix;
  std::size_t part = 0, parts = 0;
};
std::optional<GgufSplitName> parse_gguf_split_name(const std::string& name);
// "NAME-00002-of-00005.gguf" (`part` counts from 1).
std::string gguf_split_name(const std::string& name, std::size_t part, std::size_t parts);

}  // namespace ds
