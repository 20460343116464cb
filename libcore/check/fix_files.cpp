// The index of a checkpoint, and the metadata of its files.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/mapped_file.h"
#include "libcore/base/stop.h"
#include "libcore/check/fix.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/text/json_scan.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::size_t kCopyPiece = std::size_t{4} << 20;

constexpr std::array<std::string_view, 9> kIndexRules{
    "no-checkpoint",       "index-syntax",     "index-without-map",
    "index-duplicate",     "stale-index",      "tensor-not-in-shard",
    "tensor-not-in-index", "wrong-total-size", "no-total-size"};

bool is_index_rule(std::string_view name) {
  return std::find(kIndexRules.begin(), kIndexRules.end(), name) != kIndexRules.end();
}

// "model-00003-of-00163.safetensors": the two numbers; 0 and 0 for another form.
std::pair<std::int64_t, std::int64_t> shard_number(const std::string& name) {
  constexpr std::string_view kOf = "-of-", kEnd = ".safetensors";
  const std::size_t of = name.rfind(kOf);
  const std::size_t dash = of == std::string::npos || of == 0 ? of : name.rfind('-', of - 1);
  if (of == std::string::npos || dash == std::string::npos) return {0, 0};
  std::int64_t number = 0, total = 0;
  const char* const end = name.data() + name.size() - kEnd.size();
  const auto first = std::from_chars(name.data() + dash + 1, name.data() + of, number);
  const auto second = std::from_chars(name.data() + of + kOf.size(), end, total);
  const bool whole = first.ec == std::errc() && first.ptr == name.data() + of &&
                     second.ec == std::errc() && second.ptr == end;
  return whole ? std::pair{number, total} : std::pair<std::int64_t, std::int64_t>{0, 0};
}

// The new text of an index, or why there is none.
class IndexPlan {
 public:
  explicit IndexPlan(const fs::path& folder) : folder_(folder) {}

  const std::string& text() const { return text_; }
  const std::string& problem() const { return problem_; }
  // For people: what the index said, what it says now.
  std::string before, after;

  void make() {
    read_old();
    if (!choose_files()) return;
    for (const std::string& name : names_) {
      try {
        files_.push_back(std::make_unique<SafetensorsFile>(SafetensorsFile::open(folder_ / name)));
      } catch (const Error& error) {
        problem_ = std::string("a shard cannot be read: ") + error.what();
        return;
      }
    }
    if (!map_tensors()) return;
    json metadata = old_metadata_.is_object() ? old_metadata_ : json::object();
    metadata["total_size"] = total_;
    text_ = shard_index_text(map_, metadata);
    after =
        fmt::format("{} tensors in {} files, total_size {}", map_.size(), names_.size(), total_);
  }

 private:
  void read_old() {
    const fs::path path = folder_ / kIndexName;
    std::error_code ignored;
    before = "no index";
    if (!fs::exists(path, ignored)) return;
    before = "an index that cannot be read";
    try {
      old_text_ = read_file(path);
      old_ = parse_shard_index(old_text_, path.string());
      before = fmt::format("{} tensors in {} files, {}", old_->items.size(), old_->files.size(),
                           old_->total_size ? fmt::format("total_size {}", *old_->total_size)
                                            : std::string("no total_size"));
      const json document = parse_json_file(path);
      if (document.contains("metadata")) old_metadata_ = document.at("metadata");
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
    }
  }

  // The files that the index names when all are there; else all of the folder, which must then be
  // a whole set.
  bool choose_files() {
    std::vector<std::string> present;
    std::error_code code;
    for (fs::directory_iterator it(folder_, code), end; !code && it != end; it.increment(code)) {
      const std::string name = it->path().filename().string();
      if (name.ends_with(".safetensors") && it->is_regular_file(code)) present.push_back(name);
    }
    std::sort(present.begin(), present.end());
    if (old_ && !old_->files.empty() &&
        std::includes(present.begin(), present.end(), old_->files.begin(), old_->files.end())) {
      names_ = old_->files;
      return true;
    }
    std::set<std::int64_t> totals;
    for (const std::string& name : present) totals.insert(shard_number(name).second);
    if (present.empty()) {
      problem_ = "the folder holds no safetensors file";
    } else if (totals.size() > 1) {
      problem_ = "the folder holds files of more than one set, and nothing says which is the model";
    } else if (*totals.begin() > 0) {
      for (std::size_t i = 0; i < present.size() && problem_.empty(); ++i) {
        const auto [number, total] = shard_number(present[i]);
        if (number != static_cast<std::int64_t>(i) + 1) {
          problem_ = fmt::format("shard {} of {} is missing, or there twice", i + 1, total);
        } else if (i + 1 == present.size() && number != total) {
          problem_ = fmt::format("shards {} to {} are missing", number + 1, total);
        }
      }
    }
    names_ = std::move(present);
    return problem_.empty();
  }

  bool map_tensors() {
    std::map<std::string, std::vector<std::size_t>> holders;
    for (std::size_t i = 0; i < files_.size(); ++i) {
      for (const TensorInfo& tensor : files_[i]->tensors())
        holders[std::string(tensor.name)].push_back(i);
    }
    std::map<std::string, std::string> said;
    if (old_) {
      for (const ShardIndex::Item& item : old_->items)
        said[std::string(item.tensor)] = old_->files[item.file];
    }
    for (const auto& [tensor, file] : said) {
      if (holders.count(tensor) > 0) continue;
      problem_ = fmt::format("tensor {} of the index is in none of the files", quote_text(tensor));
      return false;
    }
    for (const auto& [tensor, list] : holders) {
      std::size_t chosen = list.front();
      if (list.size() > 1) {
        const auto wanted = said.find(tensor);
        const auto at = std::find_if(list.begin(), list.end(), [&](std::size_t i) {
          return wanted != said.end() && names_[i] == wanted->second;
        });
        if (at == list.end()) {
          problem_ = fmt::format("tensor {} is in {} and in {}, and nothing says which counts",
                                 quote_text(tensor), names_[list[0]], names_[list[1]]);
          return false;
        }
        chosen = *at;
      }
      map_[tensor] = names_[chosen];
      total_ += files_[chosen]->find(tensor)->bytes();
    }
    return true;
  }

  fs::path folder_;
  std::string old_text_;  // old_ lies in it
  std::optional<ShardIndex> old_;
  json old_metadata_;
  std::vector<std::string> names_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, std::string> map_;
  std::uint64_t total_ = 0;
  std::string text_;
  std::string problem_;
};

void plan_index(const fs::path& folder, const std::vector<const Finding*>& findings,
                FixPlan& plan) {
  IndexPlan index(folder);
  index.make();
  const fs::path path = folder / kIndexName;
  if (!index.problem().empty()) {
    for (const Finding* finding : findings) {
      plan.leave({finding->rule, finding->file, 0, index.problem()});
    }
    return;
  }
  std::error_code ignored;
  const std::string text = index.text();
  plan.files.push_back({path, !fs::exists(path, ignored), text.size(),
                        [text](AtomicFile& out) { out.write(text); }});
  std::set<const Rule*> said;
  for (const Finding* finding : findings) {
    if (!said.insert(finding->rule).second) continue;
    plan.add({finding->rule, path.string(), 0, "weight_map", index.before, index.after});
  }
}

// The header of a safetensors file with metadata "format": "pt", its tensors as they stand.
std::string header_with_format(const MappedFile& file, const std::string& name) {
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + sizeof length, length);
  JsonScan scan(text, name);
  json metadata = json::object();
  std::string members, scratch;
  scan.expect('{');
  while (!scan.consume('}')) {
    const std::string key(scan.string(scratch));
    scan.expect(':');
    const std::string_view value = scan.raw_value();
    if (key == "__metadata__") {
      metadata = json::parse(value);
    } else {
      members += fmt::format(",{}:{}", json(key).dump(), value);
    }
    scan.consume(',');
  }
  metadata["format"] = "pt";
  std::string header = "{\"__metadata__\":" + metadata.dump() + members + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

void write_with_header(const MappedFile& file, const std::string& header, AtomicFile& out) {
  std::uint64_t length = header.size();
  out.write(&length, sizeof length);
  out.write(header);
  std::memcpy(&length, file.data(), sizeof length);
  for (std::size_t at = sizeof length + length; at < file.size(); at += kCopyPiece) {
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "interrupted while copying");
    const std::size_t size = std::min(kCopyPiece, file.size() - at);
    out.write(file.data() + at, size);
    file.dont_need(at, size);
  }
}

void plan_metadata(const fs::path& path, const Rule* rule, FixPlan& plan) {
  try {
    const SafetensorsFile file = SafetensorsFile::open(path);
    const auto format = file.metadata().find("format");
    const bool absent = format == file.metadata().end();
    if (!absent && format->second == "pt") return;
    std::string header = header_with_format(file.file(), path.string());
    if (header.size() > kLargestSafetensorsHeader) {
      plan.leave({rule, path.string(), 0, "the header has no room left"});
      return;
    }
    const std::uint64_t bytes = file.file().size() + header.size();
    plan.files.push_back({path, false, bytes, [path, header](AtomicFile& out) {
                            write_with_header(MappedFile(path), header, out);
                          }});
    plan.add({rule, path.string(), 0, "__metadata__.format",
              absent ? "absent" : quote_text(format->second), "\"pt\""});
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    plan.leave({rule, path.string(), 0, error.what()});
  }
}

}  // namespace

FixPlan plan_fixes(TargetKind kind, const fs::path& path, const std::vector<Finding>& findings) {
  FixPlan plan;
  std::vector<const Finding*> index;
  const Rule* metadata = nullptr;
  std::set<fs::path> without_format;
  DatasetFixes rows;
  for (const Finding& finding : findings) {
    const std::string_view name = finding.rule->name;
    if (is_index_rule(name)) index.push_back(&finding);
    rows.bos = rows.bos || name == "bos-in-text";
    rows.eos = rows.eos || name == "eos-in-text";
    rows.near_miss = rows.near_miss || name == "near-miss-in-text";
    if (name == "metadata-format") {
      metadata = finding.rule;
      without_format.insert(finding.file);
    }
  }
  for (const fs::path& file : without_format) plan_metadata(file, metadata, plan);
  if (!index.empty() && kind == TargetKind::kCheckpoint) plan_index(path, index, plan);
  if ((rows.bos || rows.eos || rows.near_miss) && kind == TargetKind::kDataset) {
    plan_dataset_fixes(path, rows, plan);
  }
  return plan;
}

}  // namespace ds::check
