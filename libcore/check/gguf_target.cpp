// Files, headers and parts of a GGUF model.
#include "libcore/check/gguf_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/check/other_form.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

const char* rule_of(GgufDefect defect) {
  switch (defect) {
    case GgufDefect::kMagic:
      return "gguf-magic";
    case GgufDefect::kVersion:
      return "gguf-version";
    case GgufDefect::kCount:
      return "gguf-counts";
    case GgufDefect::kText:
      return "gguf-text";
    case GgufDefect::kValue:
      return "gguf-value";
    case GgufDefect::kDuplicate:
      return "gguf-duplicate";
    case GgufDefect::kAlignment:
      return "gguf-alignment";
    case GgufDefect::kTensor:
      return "gguf-tensor-size";
    case GgufDefect::kUnknownType:
      return "gguf-tensor-type";
    case GgufDefect::kOverlap:
      return "gguf-overlap";
    case GgufDefect::kMisaligned:
      return "gguf-misaligned";
    case GgufDefect::kHole:
      return "gguf-hole";
    default:
      return "gguf-truncated";
  }
}

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::vector<std::string> gguf_names(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code code;
  for (fs::directory_iterator it(folder, code), end; !code && it != end; it.increment(code)) {
    std::string name = it->path().filename().string();
    if (name.ends_with(".gguf")) names.push_back(std::move(name));
  }
  if (code) throw Error(ExitCode::kIo, folder.string() + ": cannot be read: " + code.message());
  std::sort(names.begin(), names.end());
  return names;
}

// A file of the one model in a folder.
fs::path model_in(const fs::path& folder) {
  std::map<std::string, std::string> models;  // prefix and first file
  for (const std::string& name : gguf_names(folder)) {
    const auto split = parse_gguf_split_name(name);
    models.emplace(split ? split->prefix : name, name);
  }
  if (models.size() == 1) return folder / models.begin()->second;
  throw Error(ExitCode::kBadInput,
              models.empty() ? folder.string() + ": there is no GGUF file in this folder"
                             : fmt::format("{}: the folder holds {} GGUF models ({}, {}, ...)",
                                           folder.string(), models.size(), models.begin()->second,
                                           std::next(models.begin())->second),
              "name the file");
}

std::optional<std::int64_t> integer_of(const GgufFile& file, const char* name) {
  return gguf_integer(file.find_key(name));
}

}  // namespace

std::optional<std::int64_t> gguf_integer(const GgufKey* key) {
  if (key == nullptr || !key->is_integer()) return std::nullopt;
  try {
    return key->integer();
  } catch (const Error&) {  // beyond 63 bits
    return std::nullopt;
  }
}

GgufTarget::GgufTarget(const fs::path& given, Findings& findings) {
  const fs::path path = fs::is_directory(given) ? model_in(given) : given;
  const auto name = parse_gguf_split_name(path.filename().string());
  if (!name) {
    open(path, findings);
    first_ = files_.empty() ? nullptr : files_.front().get();
  } else {
    std::vector<fs::path> missing;
    for (std::size_t part = 1; part <= name->parts; ++part) {
      const fs::path file = path.parent_path() / gguf_split_name(name->prefix, part, name->parts);
      if (!there(file)) {
        missing.push_back(file);
        continue;
      }
      const std::size_t before = files_.size();
      open(file, findings);
      if (part == 1 && files_.size() > before) first_ = files_.back().get();
    }
    if (!missing.empty()) {
      complete_ = false;
      findings.add(
          "gguf-part-missing",
          {.file = missing.front().string(),
           .message = fmt::format("{}: there is no such file; {} of the {} parts are absent",
                                  missing.front().string(), missing.size(), name->parts),
           .found = std::to_string(name->parts - missing.size()),
           .expected = std::to_string(name->parts)});
    }
  }
  for (const auto& file : files_) {
    for (const GgufTensor& tensor : file->tensors()) entries_.push_back({file.get(), &tensor});
  }
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const auto& a, const auto& b) { return a.tensor->name < b.tensor->name; });
  check_parts(name ? &*name : nullptr, findings);
}

void GgufTarget::open(const fs::path& path, Findings& findings) {
  try {
    files_.push_back(std::make_unique<GgufFile>(GgufFile::open(path)));
    const GgufHeader& header = files_.back()->header();
    if (header.trailing_bytes > 0) {
      findings.add("gguf-trailing",
                   {.file = path.string(),
                    .message = fmt::format("{}: {} bytes behind the last tensor belong to nothing",
                                           path.string(), header.trailing_bytes),
                    .found = std::to_string(header.trailing_bytes),
                    .expected = "0"});
    }
  } catch (const GgufError& error) {
    complete_ = false;
    const char* other = error.defect() == GgufDefect::kMagic ? other_form(path) : nullptr;
    findings.add(other != nullptr ? other : rule_of(error.defect()),
                 {.file = path.string(),
                  .tensor = error.subject(),
                  .message = error.what(),
                  .fix = other != nullptr ? "" : error.hint()});
  }
}

// `name`: of a part; nullptr for a file that is named as a whole one.
void GgufTarget::check_parts(const GgufSplitName* name, Findings& findings) const {
  for (const auto& file : files_) {
    if (name != nullptr) {
      const auto own = parse_gguf_split_name(file->path().filename().string());
      check_split_keys(*file, static_cast<std::int64_t>(own->part) - 1,
                       static_cast<std::int64_t>(own->parts), findings);
    } else if (integer_of(*file, "split.count").value_or(1) > 1) {
      check_split_keys(*file, 0, 1, findings);
    }
  }
  for (std::size_t i = 1; i < entries_.size(); ++i) {
    const GgufModel::Entry &one = entries_[i - 1], &two = entries_[i];
    if (one.tensor->name != two.tensor->name) continue;
    findings.add("gguf-part-overlap",
                 {.file = two.file->path().string(),
                  .tensor = two.tensor->name,
                  .message = fmt::format("{}: tensor {} is in {} too", two.file->path().string(),
                                         quote_text(two.tensor->name),
                                         one.file->path().filename().string())});
  }
  if (name == nullptr || files_.empty()) return;
  for (const auto& file : files_) {
    const auto wanted = integer_of(*file, "split.tensors.count");
    if (!complete_ || !wanted || *wanted == static_cast<std::int64_t>(entries_.size())) continue;
    findings.add(
        "gguf-part-keys",
        {.file = file->path().string(),
         .key = "split.tensors.count",
         .message = fmt::format("{}: split.tensors.count is {}, the {} parts hold {}",
                                file->path().string(), *wanted, files_.size(), entries_.size()),
         .found = std::to_string(*wanted),
         .expected = std::to_string(entries_.size())});
  }
  const GgufFile& any = *files_.front();
  const fs::path folder = any.path().parent_path().empty() ? "." : any.path().parent_path();
  for (const std::string& other : gguf_names(folder)) {
    const auto split = parse_gguf_split_name(other);
    if (!split || split->prefix != name->prefix || split->parts == name->parts) continue;
    const std::string file = (folder / other).string();
    findings.add("gguf-stray-part", {.file = file,
                                     .message = fmt::format("{}: a part of {}, the model has {}",
                                                            file, split->parts, name->parts),
                                     .found = std::to_string(split->parts),
                                     .expected = std::to_string(name->parts)});
    return;
  }
}

void GgufTarget::check_split_keys(const GgufFile& file, std::int64_t number, std::int64_t count,
                                  Findings& findings) const {
  const auto compare = [&](const char* key, std::optional<std::int64_t> found,
                           std::int64_t expected) {
    if (found == expected) return;
    const std::string shown = found ? std::to_string(*found) : "absent or no integer";
    findings.add("gguf-part-keys",
                 {.file = file.path().string(),
                  .key = key,
                  .message = fmt::format("{}: {} is {}, by the file's name it is {}",
                                         file.path().string(), key, shown, expected),
                  .found = shown,
                  .expected = std::to_string(expected)});
  };
  compare("split.count", integer_of(file, "split.count"), count);
  compare("split.no", integer_of(file, "split.no"), number);
  if (!integer_of(file, "split.tensors.count")) {
    findings.add("gguf-part-keys",
                 {.file = file.path().string(),
                  .key = "split.tensors.count",
                  .message = file.path().string() + ": split.tensors.count is absent or no integer",
                  .found = "absent"});
  }
}

std::uint64_t GgufTarget::bytes() const {
  std::uint64_t total = 0;
  for (const GgufModel::Entry& entry : entries_) total += entry.tensor->bytes();
  return total;
}

}  // namespace ds::check
