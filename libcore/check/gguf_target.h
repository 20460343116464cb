// A GGUF model or adapter as far as it can be read, for the checks that look at it.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libcore/check/deep.h"
#include "libcore/check/finding.h"
#include "libcore/check/tensor_stats.h"
#include "libcore/config/gguf_file.h"
#include "libcore/config/model_config.h"
#include "libcore/io/gguf.h"

namespace ds::check {

// One file, or all parts of a split that are there.
class GgufTarget {
 public:
  // `path`: a file, any part of a split, or a folder that holds the files of one model; findings on
  // files, headers and split.* keys are added. Throws Error(kIo), and Error(kBadInput) for a folder
  // that holds no or several models.
  GgufTarget(const std::filesystem::path& path, Findings& findings);

  // Those that could be read, in the order of the parts.
  const std::vector<std::unique_ptr<GgufFile>>& files() const { return files_; }
  const std::vector<GgufModel::Entry>& entries() const { return entries_; }  // by name ascending
  // The file with the keys: the first part. nullptr when it could not be read.
  const GgufFile* first() const { return first_; }
  // Whether every part was read: what is absent then is missing indeed.
  bool complete() const { return complete_; }
  std::uint64_t bytes() const;  // of the tensors

 private:
  void open(const std::filesystem::path& path, Findings& findings);
  void check_parts(const GgufSplitName* name, Findings& findings) const;
  void check_split_keys(const GgufFile& file, std::int64_t number, std::int64_t count,
                        Findings& findings) const;
  std::vector<std::unique_ptr<GgufFile>> files_;
  std::vector<GgufModel::Entry> entries_;
  const GgufFile* first_ = nullptr;
  bool complete_ = true;
};

// The value of a key that is an integer below 2^63; nothing for another, or for nullptr.
std::optional<std::int64_t> gguf_integer(const GgufKey* key);

// A deepseek2 model: keys, tensors, vocabulary, chat template; with `deep` whether its values are
// finite. Returns the model's config when the keys make one.
std::optional<ModelConfig> check_gguf(const GgufTarget& target, const DeepOptions* deep,
                                      Findings& findings);
// An adapter, against `base` when it is known.
void check_gguf_adapter(const GgufTarget& target, const ModelConfig* base, const DeepOptions* deep,
                        Findings& findings);

// Parts of check_gguf().
std::optional<ModelConfig> check_gguf_architecture(const GgufTarget& target, Findings& findings);
void check_gguf_vocabulary(const GgufTarget& target, Findings& findings);
// Statistics of every entry whose type has a rule (F32, F16, BF16, Q8_0: of its scales).
std::vector<TensorStats> read_gguf(const GgufTarget& target, const DeepOptions& options);
void check_gguf_values(const GgufTarget& target, const DeepOptions& options, Findings& findings);

}  // namespace ds::check
