// A fuzzer's bytes as the files of a folder.
//
// A file begins with one of the bytes below and a letter for its name ('a': the first of `names`),
// and ends where the next one begins. None of these bytes occurs in UTF-8, so an insertion in one
// file leaves the others as they are.
//   F5  the bytes as they are
//   F6  a JSON merge patch (RFC 7396) of the file of that name in tests/fuzz/base
//   F7  lines, from which a safetensors or GGUF file is made: offsets and counts are right unless
//       the lines themselves are not
//         safetensors   "@ KEY VALUE"             an entry of __metadata__
//                       "NAME DTYPE 2,3 HEX"      a tensor filled with these bytes, repeated
//         GGUF          "@ KEY TYPE VALUE"        TYPE u U i f b s, or S and I for lists ('|')
//                       "NAME NUMBER 3,2 HEX"     a tensor of this ggml type, fastest extent first
//   F8  a safetensors file whose first 8 bytes, the header's length, are put in front; the header
//       ends at a byte FF or the end
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ds::fuzz {

struct InputFile {
  std::string name;
  std::string bytes;
};

// Of one made file at most this many bytes of data are written, whatever its lines claim.
inline constexpr std::uint64_t kMostData = std::uint64_t{64} << 10;

// What stands before the first file is ignored, as is a letter beyond `names`.
std::vector<InputFile> split_input(std::string_view input, std::span<const char* const> names);

std::string safetensors_of_lines(std::string_view lines);
std::string gguf_of_lines(std::string_view lines);

// tests/fuzz/base: a tiny model's config.json and tokenizer files. Found by DEEPSEEK_SOURCE_DIR;
// ends the process with a message when it is not there.
const std::filesystem::path& base_folder();

// A folder of this process in memory (TMPDIR, else /dev/shm where it is there), removed at its end.
class MemoryFolder {
 public:
  MemoryFolder();
  ~MemoryFolder();
  MemoryFolder(const MemoryFolder&) = delete;
  MemoryFolder& operator=(const MemoryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  // Makes the folder hold these files and no others; of two with one name the last.
  void hold(const std::vector<InputFile>& files) const;

 private:
  std::filesystem::path path_;
};

}  // namespace ds::fuzz
