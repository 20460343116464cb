// What a path is.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace ds::check {

enum class TargetKind {
  kCheckpoint,
  kShard,
  kAdapter,
  kTokenizer,
  kDataset,
  kGguf,
  kGgufAdapter,
  kInference,
  kMachine
};
std::string_view target_name(TargetKind kind);  // "checkpoint", "shard", ...

struct Detected {
  TargetKind kind = TargetKind::kCheckpoint;
  // A folder for checkpoints, inference shards, adapters and tokenizers; a file, any part or the
  // folder for GGUF; else a file.
  std::filesystem::path path;
};

// By the names in a folder, and a file's name and first bytes. A file such as config.json or
// adapter_config.json stands for its folder. Throws Error(kBadInput) for a path that is not there
// or is nothing we know, with what was looked for.
Detected detect(const std::filesystem::path& path);

}  // namespace ds::check
