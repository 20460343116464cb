#include "libcore/io/checkpoint_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/ranges.h"
#include "libcore/io/shard_headers.h"

namespace ds {
namespace {

namespace fs = std::filesystem;
using Kind = CheckpointFindingKind;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr const char* kSingleName = "model.safetensors";

// "3 tensors ("a", "b", "c")", at most four of them shown.
std::string some_of(const std::vector<std::string>& tensors) {
  constexpr std::size_t kShown = 4;
  std::string text =
      fmt::format("{} tensor{} (", format_count(static_cast<std::int64_t>(tensors.size())),
                  tensors.size() == 1 ? "" : "s");
  for (std::size_t i = 0; i < tensors.size() && i < kShown; ++i) {
    if (i > 0) text += ", ";
    text += quote_text(tensors[i]);
  }
  return text + (tensors.size() > kShown ? ", ...)" : ")");
}

bool there(const fs::path& path) {
  std::error_code code;
  const bool found = fs::exists(path, code);
  // A name that no file can have is an absent file.
  if (code == std::errc::filename_too_long || code == std::errc::too_many_symbolic_link_levels) {
    return false;
  }
  if (code) {
    throw Error(ExitCode::kIo, path.string() + ": cannot be read: " + code.message());
  }
  return found;
}

std::vector<std::string> safetensors_files(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code code;
  fs::directory_iterator entries(folder, code);
  if (code) {
    throw Error(ExitCode::kIo, folder.string() + ": cannot be read: " + code.message(),
                "a checkpoint is a folder with config.json and safetensors files");
  }
  for (; entries != fs::directory_iterator(); entries.increment(code)) {
    const fs::path& path = entries->path();
    const std::string name = path.filename().string();
    if (path.extension() == ".safetensors" && name.front() != '.') names.push_back(name);
    if (code) break;
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

// Collects all findings, then the caller decides what they mean.
class CheckpointLoader {
 public:
  explicit CheckpointLoader(const fs::path& folder) { checkpoint_.folder_ = folder; }

  void load() {
    present_ = safetensors_files(folder());
    if (there(folder() / kIndexName)) {
      load_index();
    } else if (there(folder() / kSingleName)) {
      load_single();
    } else {
      no_checkpoint();
    }
    auto& list = findings_;
    std::stable_sort(list.begin(), list.end(),
                     [](const auto& a, const auto& b) { return a.error && !b.error; });
  }

  std::vector<CheckpointFinding>& findings() { return findings_; }
  Checkpoint& checkpoint() { return checkpoint_; }
  std::vector<std::string>& unreadable() { return unreadable_; }
  bool has_index() const { return has_index_; }
  bool has_total_size() const { return has_total_size_; }

 private:
  const fs::path& folder() const { return checkpoint_.folder_; }

  CheckpointFinding& add(Kind kind, bool error, const std::string& file, const std::string& what) {
    CheckpointFinding& finding = findings_.emplace_back();
    finding.kind = kind;
    finding.error = error;
    finding.file = file;
    finding.message = (folder() / file).string() + ": " + what;
    return finding;
  }

  static void describe(CheckpointFinding& finding, const Error& error) {
    finding.message = error.what();
    finding.hint = error.hint();
    if (const auto* container = dynamic_cast<const ContainerError*>(&error)) {
      finding.defect = container->defect();
      finding.subject = container->subject();
    }
  }

  void no_checkpoint() {
    CheckpointFinding& finding = add(Kind::kNoCheckpoint, true, "", "");
    finding.message = folder().string() + ": no checkpoint: neither " + kIndexName + " nor " +
                      kSingleName + " is there";
    if (!present_.empty()) {
      finding.message += fmt::format(", but {} other *.safetensors file{} ({}{})", present_.size(),
                                     present_.size() == 1 ? "" : "s", present_.front(),
                                     present_.size() == 1 ? "" : ", ...");
      finding.hint = "shards need their index file: download " + std::string(kIndexName) + " too";
    } else if (there(folder() / "pytorch_model.bin") ||
               there(folder() / "pytorch_model.bin.index.json")) {
      finding.hint = "the folder has PyTorch .bin files: save the model as safetensors";
    } else {
      finding.hint = "give the folder that holds config.json and the safetensors files";
    }
  }

  // nullptr when the file is bad (which is then a finding).
  SafetensorsFile* open_file(const std::string& name) {
    return adopt(name, [&] { return SafetensorsFile::open(folder() / name); });
  }

  template <class Open>
  SafetensorsFile* adopt(const std::string& name, Open&& open) {
    try {
      auto file = std::make_unique<SafetensorsFile>(open());
      return checkpoint_.files_.emplace_back(std::move(file)).get();
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      describe(add(Kind::kBadShard, true, name, ""), error);
      return nullptr;
    }
  }

  void load_single() {
    const SafetensorsFile* file = open_file(kSingleName);
    if (file == nullptr) return;
    for (const TensorInfo& tensor : file->tensors())
      checkpoint_.entries_.push_back({file, &tensor});
    std::sort(checkpoint_.entries_.begin(), checkpoint_.entries_.end(),
              [](const auto& a, const auto& b) { return a.tensor->name < b.tensor->name; });
  }

  void load_index() {
    ShardHeaders headers(folder(), present_);
    ShardIndex index;
    has_index_ = true;
    MappedFile file;
    try {
      file = MappedFile(folder() / kIndexName);
      index = parse_shard_index(
          std::string_view(reinterpret_cast<const char*>(file.data()), file.size()),
          (folder() / kIndexName).string());
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      describe(add(Kind::kBadIndex, true, kIndexName, ""), error);
      return;
    }
    has_total_size_ = index.total_size.has_value();
    std::vector<const SafetensorsFile*> shards(index.files.size());
    std::vector<bool> absent(index.files.size());
    for (std::size_t i = 0; i < index.files.size(); ++i) {
      absent[i] = !there(folder() / index.files[i]);
    }
    headers.finish();
    for (std::size_t i = 0; i < index.files.size(); ++i) {
      const std::string& name = index.files[i];
      if (!absent[i]) shards[i] = adopt(name, [&] { return headers.take(name); });
    }
    place(index, shards);
    std::vector<std::vector<std::string>> lost(index.files.size());
    const auto nowhere = [](const Checkpoint::Entry& entry) { return entry.tensor == nullptr; };
    auto& entries = checkpoint_.entries_;
    if (std::find_if(entries.begin(), entries.end(), nowhere) != entries.end()) {
      for (std::size_t i = 0; i < entries.size(); ++i) {
        if (!nowhere(entries[i])) continue;
        const ShardIndex::Item& item = index.items[i];
        unreadable_.emplace_back(item.tensor);
        if (shards[item.file] != nullptr || absent[item.file]) {
          lost[item.file].emplace_back(item.tensor);
        }
      }
      std::erase_if(entries, nowhere);
    }
    report_lost(index, shards, absent, lost);
    report_extra(index, shards);
  }

  // An entry for each item of the index, null where its shard has no such tensor.
  void place(const ShardIndex& index, const std::vector<const SafetensorsFile*>& shards) {
    checkpoint_.entries_.resize(index.items.size());
    constexpr std::size_t kItemsPerThread = 4096;
    for_ranges(index.items.size(), kItemsPerThread, [&](std::size_t begin, std::size_t end) {
      // The items come in name order, so each shard's tensors are met in its own name order.
      std::vector<std::size_t> next(shards.size());
      for (std::size_t i = 0; i < shards.size() && begin > 0; ++i) {
        if (shards[i] != nullptr) next[i] = name_place(*shards[i], index.items[begin].tensor);
      }
      for (std::size_t i = begin; i < end; ++i) {
        const ShardIndex::Item& item = index.items[i];
        const SafetensorsFile* shard = shards[item.file];
        if (shard == nullptr) continue;
        const auto& order = shard->name_order();
        const auto& tensors = shard->tensors();
        for (std::size_t& at = next[item.file]; at < order.size();) {
          const int order_of = tensors[order[at]].name.compare(item.tensor);
          if (order_of > 0) break;
          const TensorInfo* tensor = &tensors[order[at++]];
          if (order_of < 0) continue;
          checkpoint_.entries_[i] = {shard, tensor};
          break;
        }
      }
    });
  }

  // How many of the shard's tensors come before `name`.
  static std::size_t name_place(const SafetensorsFile& shard, std::string_view name) {
    const auto& order = shard.name_order();
    const auto at = std::lower_bound(order.begin(), order.end(), name,
                                     [&](std::uint32_t tensor, std::string_view key) {
                                       return shard.tensors()[tensor].name < key;
                                     });
    return static_cast<std::size_t>(at - order.begin());
  }

  // A tensor of that name in any file of the folder, and the file's name.
  std::string holder(const std::string& tensor,
                     const std::vector<std::unique_ptr<SafetensorsFile>>& others) const {
    for (const auto* list : {&checkpoint_.files_, &others}) {
      for (const auto& file : *list) {
        if (file->find(tensor) != nullptr) return file->path().filename().string();
      }
    }
    return "";
  }

  void report_lost(const ShardIndex& index, const std::vector<const SafetensorsFile*>& shards,
                   const std::vector<bool>& absent,
                   const std::vector<std::vector<std::string>>& lost) {
    bool any = false;
    for (const auto& tensors : lost) any = any || !tensors.empty();
    if (!any && std::find(absent.begin(), absent.end(), true) == absent.end()) return;
    // Only to tell what happened: nothing is loaded from files that the index does not name.
    std::vector<std::unique_ptr<SafetensorsFile>> others;
    for (const std::string& name : present_) {
      if (std::binary_search(index.files.begin(), index.files.end(), name)) continue;
      try {
        others.push_back(std::make_unique<SafetensorsFile>(SafetensorsFile::open(folder() / name)));
      } catch (const Error&) {
        continue;
      }
    }
    std::vector<std::string> missing_files;
    std::vector<std::string> missing_tensors;
    bool elsewhere = true;
    for (std::size_t i = 0; i < index.files.size(); ++i) {
      if (!absent[i]) continue;
      missing_files.push_back(index.files[i]);
      for (const std::string& tensor : lost[i]) {
        missing_tensors.push_back(tensor);
        elsewhere = elsewhere && !holder(tensor, others).empty();
      }
    }
    if (!missing_files.empty() && elsewhere) {
      std::sort(missing_tensors.begin(), missing_tensors.end());
      CheckpointFinding& finding =
          add(Kind::kStaleIndex, true, kIndexName,
              fmt::format("stale index: {} of the {} shards it names are absent ({}{}), but all of "
                          "their {} are in other files of the folder",
                          missing_files.size(), index.files.size(), missing_files.front(),
                          missing_files.size() > 1 ? ", ..." : "", some_of(missing_tensors)));
      finding.hint = "the index belongs to an earlier sharding: write it again from the files";
      finding.tensors = std::move(missing_tensors);
    }
    for (std::size_t i = 0; i < index.files.size(); ++i) {
      if (absent[i] && !elsewhere) {
        CheckpointFinding& finding =
            add(Kind::kMissingShard, true, index.files[i],
                "the shard is named by the index but absent; it should hold " + some_of(lost[i]));
        finding.hint = "download or copy the missing shard";
        finding.tensors = lost[i];
      } else if (shards[i] != nullptr && !lost[i].empty()) {
        CheckpointFinding& finding =
            add(Kind::kTensorNotInShard, true, index.files[i],
                "the shard does not hold " + some_of(lost[i]) + " that the index places in it");
        const std::string other = holder(lost[i].front(), others);
        finding.hint = other.empty()
                           ? "the shard and the index do not belong together: download both again"
                           : quote_text(lost[i].front()) + " is in " + other +
                                 ": write the index again from the files";
        finding.tensors = lost[i];
      }
    }
  }

  void report_extra(const ShardIndex& index, const std::vector<const SafetensorsFile*>& shards) {
    std::uint64_t total = 0;
    for (const auto& entry : checkpoint_.entries_) total += entry.tensor->bytes();
    // Both lists are sorted by name; `placed` says where the index wants a tensor.
    const auto placed = [&index](std::string_view tensor) -> const ShardIndex::Item* {
      const auto at = std::lower_bound(
          index.items.begin(), index.items.end(), tensor,
          [](const ShardIndex::Item& item, std::string_view key) { return item.tensor < key; });
      return at != index.items.end() && at->tensor == tensor ? &*at : nullptr;
    };
    std::size_t in_shards = 0;
    for (const SafetensorsFile* shard : shards) {
      if (shard != nullptr) in_shards += shard->tensors().size();
    }
    // Every entry is one tensor of one shard: equal numbers leave nothing over.
    if (in_shards != checkpoint_.entries_.size()) {
      for (std::size_t i = 0; i < shards.size(); ++i) {
        if (shards[i] == nullptr) continue;
        std::vector<std::string> unknown;
        std::vector<std::string> duplicate;
        for (const TensorInfo& tensor : shards[i]->tensors()) {
          const ShardIndex::Item* item = placed(tensor.name);
          if (item == nullptr) {
            unknown.emplace_back(tensor.name);
          } else if (item->file != i && shards[item->file] != nullptr &&
                     shards[item->file]->find(tensor.name) != nullptr) {
            duplicate.emplace_back(tensor.name);
          }
        }
        std::sort(unknown.begin(), unknown.end());
        std::sort(duplicate.begin(), duplicate.end());
        if (!unknown.empty()) {
          add(Kind::kTensorNotInIndex, false, index.files[i],
              "the shard holds " + some_of(unknown) + " that the index does not name")
              .tensors = unknown;
        }
        if (!duplicate.empty()) {
          add(Kind::kDuplicateTensor, false, index.files[i],
              "the shard holds " + some_of(duplicate) +
                  " that the index places in another shard, which has them too")
              .tensors = duplicate;
        }
      }
    }
    if (index.total_size && checkpoint_.entries_.size() == index.items.size() &&
        *index.total_size != total) {
      add(Kind::kWrongTotalSize, false, kIndexName,
          fmt::format("metadata.total_size is {}, the tensors have {} bytes", *index.total_size,
                      total));
    }
    for (const std::string& name : present_) {
      if (std::binary_search(index.files.begin(), index.files.end(), name)) continue;
      add(Kind::kFileNotInIndex, false, name, "the file is not named by the index and is not read");
    }
  }

  Checkpoint checkpoint_;
  std::vector<std::string> present_;  // *.safetensors in the folder
  std::vector<CheckpointFinding> findings_;
  std::vector<std::string> unreadable_;
  bool has_index_ = false;
  bool has_total_size_ = false;
};

Checkpoint Checkpoint::open(const fs::path& folder) {
  CheckpointLoader loader(folder);
  loader.load();
  auto& findings = loader.findings();
  const auto errors =
      std::count_if(findings.begin(), findings.end(), [](const auto& f) { return f.error; });
  if (errors > 0) {
    std::string message = findings.front().message;
    if (errors > 1) message += fmt::format(" (and {} more errors)", errors - 1);
    throw Error(ExitCode::kBadInput, message, findings.front().hint);
  }
  loader.checkpoint().warnings_ = std::move(findings);
  return std::move(loader.checkpoint());
}

std::vector<CheckpointFinding> Checkpoint::inspect(const fs::path& folder) {
  CheckpointLoader loader(folder);
  loader.load();
  return std::move(loader.findings());
}

CheckpointInspection Checkpoint::examine(const fs::path& folder) {
  CheckpointLoader loader(folder);
  loader.load();
  return {std::move(loader.checkpoint()), std::move(loader.findings()),
          std::move(loader.unreadable()), loader.has_index(), loader.has_total_size()};
}

Checkpoint::Entry Checkpoint::find(std::string_view name) const {
  const auto at = std::lower_bound(
      entries_.begin(), entries_.end(), name,
      [](const Entry& entry, std::string_view key) { return entry.tensor->name < key; });
  return at != entries_.end() && at->tensor->name == name ? *at : Entry{};
}

std::vector<std::string_view> Checkpoint::names() const {
  std::vector<std::string_view> names;
  names.reserve(entries_.size());
  for (const Entry& entry : entries_) names.push_back(entry.tensor->name);
  return names;
}

std::uint64_t Checkpoint::total_bytes() const {
  std::uint64_t total = 0;
  for (const Entry& entry : entries_) total += entry.tensor->bytes();
  return total;
}

}  // namespace ds
