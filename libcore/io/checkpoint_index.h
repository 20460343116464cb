// A checkpoint folder: one model.safetensors, or shards with model.safetensors.index.json.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/io/container_error.h"
#include "libcore/io/safetensors.h"

namespace ds {

// What can be wrong with a checkpoint folder's files (reference/formats.md section 2).
enum class CheckpointFindingKind {
  // Errors: the checkpoint cannot be used.
  kNoCheckpoint,  // neither an index nor model.safetensors
  kBadIndex,      // the index is no index (JSON, shape, duplicate tensor, unsafe shard name)
  kBadShard,      // a shard that is truncated or otherwise no safetensors file
  kMissingShard,  // a shard is named but absent
  kStaleIndex,    // absent shards, but every one of their tensors is in other files of the folder
  kTensorNotInShard,  // the index names a tensor that its shard has not
  // Warnings: loading goes by the index.
  kTensorNotInIndex,  // a shard has a tensor that the index does not name
  kDuplicateTensor,   // two shards have a tensor of the same name
  kWrongTotalSize,    // metadata.total_size is not the sum of the tensors' bytes
  kFileNotInIndex,    // a *.safetensors file that the index does not name
};

struct CheckpointFinding {
  CheckpointFindingKind kind = CheckpointFindingKind::kNoCheckpoint;
  bool error = false;
  std::string message;               // one sentence naming folder, file and tensors
  std::string hint;                  // what to do, may be empty
  std::string file;                  // the shard or index concerned, without its folder
  std::vector<std::string> tensors;  // all tensors concerned, in name order
  ContainerDefect defect = ContainerDefect::kNone;  // of a bad shard or index
  std::string subject;                              // the tensor or key the defect is about
};
struct CheckpointInspection;

// Opens the index and every shard's header (mapped). Tensors are found through the index, never by
// globbing: without an index the folder needs model.safetensors.
class Checkpoint {
 public:
  // Throws Error(kIo) when the folder cannot be read and Error(kBadInput) with the first finding
  // that is an error (and says how many more there are).
  static Checkpoint open(const std::filesystem::path& folder);
  // Every finding, errors first; for programs that report rather than load. Throws Error(kIo) only.
  static std::vector<CheckpointFinding> inspect(const std::filesystem::path& folder);
  // The same, and what could be opened in spite of them: entries() holds the tensors that are where
  // the index says, and may be empty.
  static CheckpointInspection examine(const std::filesystem::path& folder);

  struct Entry {
    const SafetensorsFile* file = nullptr;
    const TensorInfo* tensor = nullptr;
  };
  const std::filesystem::path& folder() const { return folder_; }
  // nullptr tensor when absent.
  Entry find(std::string_view name) const;
  // All tensors, by name ascending.
  const std::vector<Entry>& entries() const { return entries_; }
  // Their names; valid while this object lives.
  std::vector<std::string_view> names() const;
  std::size_t tensor_count() const { return entries_.size(); }
  std::uint64_t total_bytes() const;  // of the tensors' data, headers not counted
  const std::vector<std::unique_ptr<SafetensorsFile>>& files() const { return files_; }
  // What open() found and went on with.
  const std::vector<CheckpointFinding>& warnings() const { return warnings_; }

 private:
  friend class CheckpointLoader;
  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<Entry> entries_;  // sorted by name
  std::vector<CheckpointFinding> warnings_;
};

struct CheckpointInspection {
  Checkpoint checkpoint;
  std::vector<CheckpointFinding> findings;  // errors first
  std::vector<std::string> unreadable;  // tensors of the index that could not be reached, sorted
  bool has_index = false;
  bool index_has_total_size = false;
};

// The parsed index file. Names of tensors lie in its text, or in `unescaped`.
struct ShardIndex {
  struct Item {
    std::string_view tensor;
    std::uint32_t file = 0;
  };
  std::vector<Item> items;         // sorted by tensor name
  std::vector<std::string> files;  // sorted, plain file names
  std::optional<std::uint64_t> total_size;
  std::deque<std::string> unescaped;
};
// `text` must outlive the result; `name` is the file's name in messages. Empty or absent metadata
// is fine. Throws Error(kBadInput) for bad JSON, no weight_map, a tensor named twice, a shard name
// that is no plain file name.
ShardIndex parse_shard_index(std::string_view text, const std::string& name);
ShardIndex parse_shard_index(std::string&& text, const std::string& name) = delete;
// The text of an index as transformers writes it; `files`: the file of each tensor.
std::string shard_index_text(const std::map<std::string, std::string>& files,
                             const nlohmann::json& metadata);

}  // namespace ds
