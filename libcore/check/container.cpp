#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <system_error>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/check/checks.h"
#include "libcore/check/other_form.h"
#include "libcore/config/inference_names.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using Kind = CheckpointFindingKind;

const char* rule_of(ContainerDefect defect) {
  switch (defect) {
    case ContainerDefect::kTooShort:
      return "file-too-short";
    case ContainerDefect::kHeaderTooLong:
      return "header-too-long";
    case ContainerDefect::kHeaderPastEnd:
    case ContainerDefect::kTruncated:
      return "truncated-file";
    case ContainerDefect::kHeaderNotUtf8:
      return "header-not-utf8";
    case ContainerDefect::kUnknownDtype:
      return "unknown-dtype";
    case ContainerDefect::kBadMetadata:
      return "bad-metadata";
    case ContainerDefect::kDuplicateName:
      return "duplicate-name";
    case ContainerDefect::kOffsetsReversed:
      return "offsets-reversed";
    case ContainerDefect::kHole:
      return "hole-in-data";
    case ContainerDefect::kOverlap:
      return "overlapping-tensors";
    case ContainerDefect::kSizeOverflow:
      return "size-overflow";
    case ContainerDefect::kPartialBytes:
      return "partial-bytes";
    case ContainerDefect::kSizeMismatch:
      return "size-mismatch";
    case ContainerDefect::kTrailing:
      return "trailing-bytes";
    case ContainerDefect::kIndexSyntax:
      return "index-syntax";
    case ContainerDefect::kNoWeightMap:
      return "index-without-map";
    case ContainerDefect::kIndexDuplicate:
      return "index-duplicate";
    case ContainerDefect::kUnsafeShard:
      return "unsafe-shard-name";
    default:
      return "header-syntax";
  }
}

// `message` of an Error without the path in front, which the finding has in its own field.
void add_defect(const fs::path& path, ContainerDefect defect, const std::string& subject,
                const std::string& message, Findings& findings) {
  const char* other = other_form(path);
  findings.add(other != nullptr ? other : rule_of(defect),
               {.file = path.string(), .tensor = subject, .message = message});
}

// Whatever can be said of a sound file's entries.
void check_entries(const SafetensorsFile& file, Findings& findings) {
  const std::string path = file.path().string();
  const auto format = file.metadata().find("format");
  // The reference writes the shards of the inference layout without metadata.
  const bool inference = parse_inference_shard(file.path().filename().string()).has_value();
  if (!inference && (format == file.metadata().end() || format->second != "pt")) {
    const std::string found =
        format == file.metadata().end() ? "no format" : quote_text(format->second);
    findings.add(
        "metadata-format",
        {.file = path,
         .key = "__metadata__.format",
         .message = fmt::format("{}: the metadata has {}, transformers needs \"pt\"", path, found),
         .found = found,
         .expected = "pt"});
  }
  if (file.tensors().empty()) {
    findings.add("empty-shard", {.file = path, .message = path + ": the file holds no tensors"});
  }
  std::vector<std::string> misaligned;
  for (const TensorInfo& tensor : file.tensors()) {
    if (!file.aligned(tensor)) misaligned.emplace_back(tensor.name);
    if (tensor.begin == tensor.end) {
      const auto empty = std::find(tensor.shape.begin(), tensor.shape.end(), 0);
      if (empty != tensor.shape.end()) {
        findings.add("empty-tensor", {.file = path,
                                      .tensor = std::string(tensor.name),
                                      .message = fmt::format("{}: tensor {} has no elements", path,
                                                             quote_text(tensor.name))});
      }
    }
    // Without an early end: many characters at once.
    unsigned odd = tensor.name.empty() ? 1 : 0;
    for (const char c : tensor.name) odd |= c > 0x20 && c < 0x7f ? 0U : 1U;
    if (odd != 0) {
      findings.add("odd-name", {.file = path,
                                .tensor = std::string(tensor.name),
                                .message = fmt::format(
                                    "{}: the tensor name {} is {}", path, quote_text(tensor.name),
                                    tensor.name.empty() ? "empty" : "not all visible ASCII")});
    }
  }
  if (!misaligned.empty()) {
    findings.add("misaligned-tensor",
                 {.file = path,
                  .tensor = misaligned.front(),
                  .message = fmt::format("{}: {} misaligned for the dtype", path,
                                         some_names(misaligned, "tensor")),
                  .found = std::to_string(misaligned.size())});
  }
}

// "model-00003-of-000163.safetensors" -> 163; 0 when the name is not of that form.
std::int64_t total_of(const std::string& name) {
  const std::size_t of = name.rfind("-of-");
  if (of == std::string::npos) return 0;
  std::int64_t total = 0;
  const char* begin = name.data() + of + 4;
  const auto [end, error] = std::from_chars(begin, name.data() + name.size(), total);
  if (error != std::errc() || std::string_view(end) != ".safetensors") return 0;
  return total;
}

void check_shard_count(const CheckpointTarget& target, Findings& findings) {
  if (!target.inspection().has_index) return;
  std::map<std::int64_t, std::int64_t> named;  // by total
  for (const auto& file : target.inspection().checkpoint.files()) {
    const std::int64_t total = total_of(file->path().filename().string());
    if (total > 0) ++named[total];
  }
  for (const CheckpointFinding& finding : target.inspection().findings) {
    if (finding.kind == Kind::kMissingShard || finding.kind == Kind::kStaleIndex ||
        finding.kind == Kind::kBadShard) {
      return;  // said there
    }
  }
  for (const auto& [total, count] : named) {
    if (total == count) continue;
    const std::string index = target.path_of("model.safetensors.index.json");
    findings.add("shard-count",
                 {.file = index,
                  .message = fmt::format("{}: the shards' names say that there are {}, the index "
                                         "names {} of them",
                                         index, total, count),
                  .found = std::to_string(count),
                  .expected = std::to_string(total)});
  }
}

// Files beside the shards that tell of an interrupted download or of other weights.
void check_other_files(const CheckpointTarget& target, Findings& findings) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator it(target.folder(), code); !code && it != fs::directory_iterator();
       it.increment(code)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  std::vector<std::string> pickles;
  for (const std::string& name : names) {
    for (const char* ending : {".incomplete", ".part", ".aria2", ".crdownload", ".download"}) {
      if (!name.ends_with(ending)) continue;
      findings.add("partial-download",
                   {.file = target.path_of(name),
                    .message = target.path_of(name) + ": an unfinished download"});
    }
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth")) {
      pickles.push_back(name);
    }
    if (name.ends_with(".json") && name != "config.json") {
      const char* other = other_form(target.folder() / name);
      if (other != nullptr) {
        findings.add(other,
                     {.file = target.path_of(name),
                      .message = target.path_of(name) + ": the file is " +
                                 (std::string_view(other) == "lfs-pointer" ? "a Git LFS pointer"
                                                                           : "no JSON file")});
      }
    }
  }
  if (!pickles.empty() && !target.entries().empty()) {
    findings.add("pickle-weights",
                 {.file = target.path_of(pickles.front()),
                  .message = fmt::format("{}: {} beside the safetensors files",
                                         target.folder().string(), some_names(pickles, "file"))});
  }
}

void add_index_finding(const CheckpointTarget& target, const CheckpointFinding& found,
                       Findings& findings) {
  static const std::map<Kind, const char*> kRules{{Kind::kNoCheckpoint, "no-checkpoint"},
                                                  {Kind::kMissingShard, "missing-shard"},
                                                  {Kind::kStaleIndex, "stale-index"},
                                                  {Kind::kTensorNotInShard, "tensor-not-in-shard"},
                                                  {Kind::kTensorNotInIndex, "tensor-not-in-index"},
                                                  {Kind::kDuplicateTensor, "duplicate-tensor"},
                                                  {Kind::kWrongTotalSize, "wrong-total-size"},
                                                  {Kind::kFileNotInIndex, "stray-file"}};
  const fs::path path = found.file.empty() ? target.folder() : target.folder() / found.file;
  if (found.kind == Kind::kBadShard || found.kind == Kind::kBadIndex) {
    add_defect(path, found.defect, found.subject, found.message, findings);
    return;
  }
  std::error_code code;
  const bool dangling = found.kind == Kind::kMissingShard && fs::is_symlink(path, code);
  findings.add(dangling ? "dangling-link" : kRules.at(found.kind),
               {.file = path.string(),
                .tensor = found.tensors.empty() ? "" : found.tensors.front(),
                .message = dangling ? fmt::format("{}: the link leads nowhere ({})", path.string(),
                                                  fs::read_symlink(path, code).string())
                                    : found.message,
                .fix = dangling ? "" : found.hint});
}

}  // namespace

void check_container(const CheckpointTarget& target, Findings& findings) {
  const CheckpointInspection& inspection = target.inspection();
  for (const CheckpointFinding& found : inspection.findings) {
    add_index_finding(target, found, findings);
  }
  for (const auto& file : inspection.checkpoint.files()) check_entries(*file, findings);
  if (inspection.has_index && !inspection.index_has_total_size &&
      !inspection.checkpoint.files().empty()) {
    const std::string index = target.path_of("model.safetensors.index.json");
    findings.add("no-total-size",
                 {.file = index,
                  .key = "metadata.total_size",
                  .message = index + ": metadata.total_size is absent or no whole number",
                  .expected = std::to_string(inspection.checkpoint.total_bytes())});
  }
  const bool said = std::any_of(inspection.findings.begin(), inspection.findings.end(),
                                [](const CheckpointFinding& found) { return found.error; });
  if (inspection.has_index && inspection.checkpoint.files().empty() && !said) {
    const std::string index = target.path_of("model.safetensors.index.json");
    findings.add(
        "index-without-map",
        {.file = index, .key = "weight_map", .message = index + ": weight_map names no tensor"});
  }
  check_shard_count(target, findings);
  check_other_files(target, findings);
}

std::optional<SafetensorsFile> check_shard(const fs::path& path, Findings& findings) {
  try {
    SafetensorsFile file = SafetensorsFile::open(path);
    check_entries(file, findings);
    return file;
  } catch (const ContainerError& error) {
    add_defect(path, error.defect(), error.subject(), error.what(), findings);
    return std::nullopt;
  }
}

}  // namespace ds::check
