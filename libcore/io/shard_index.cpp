#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <unordered_map>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/sort_runs.h"
#include "libcore/base/utf8.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/io/container_error.h"
#include "libcore/io/json_cursor.h"

namespace ds {
namespace {

constexpr int kSkippedDepth = 128;
constexpr std::size_t kShortItem = 64;  // bytes of "tensor": "file",

using Defect = ContainerDefect;

[[noreturn]] void bad(const std::string& name, Defect defect, const std::string& what,
                      const std::string& hint = "", const std::string& subject = "") {
  throw ContainerError(defect, name + ": " + what, hint, subject);
}

bool plain_file_name(std::string_view file) {
  return !file.empty() && file != "." && file.find("..") == std::string_view::npos &&
         file.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

class IndexReader {
 public:
  IndexReader(std::string_view text, const std::string& name)
      : cursor_(text), size_(text.size()), name_(name) {}

  ShardIndex read() {
    bool map_seen = false;
    bool metadata_seen = false;
    if (cursor_.peek() != '{') cursor_.fail("the index is not a JSON object");
    cursor_.expect('{');
    if (!cursor_.take('}')) {
      do {
        const std::string_view key = cursor_.string(scratch_);
        if (key == "weight_map") {
          if (map_seen)
            bad(name_, Defect::kIndexDuplicate, "the key \"weight_map\" is there twice");
          map_seen = true;
          cursor_.expect(':');
          weight_map();
        } else if (key == "metadata") {
          if (metadata_seen)
            bad(name_, Defect::kIndexDuplicate, "the key \"metadata\" is there twice");
          metadata_seen = true;
          cursor_.expect(':');
          metadata();
        } else {
          cursor_.expect(':');
          cursor_.skip_value(kSkippedDepth);
        }
      } while (cursor_.take(','));
      cursor_.expect('}');
    }
    cursor_.expect_end();
    if (!map_seen) bad(name_, Defect::kNoWeightMap, "the key \"weight_map\" is missing");
    sort();
    return std::move(index_);
  }

 private:
  void metadata() {
    if (cursor_.peek() != '{') {
      cursor_.skip_value(kSkippedDepth);  // null, usually
      return;
    }
    cursor_.expect('{');
    if (cursor_.take('}')) return;
    do {
      const bool size = cursor_.string(scratch_) == "total_size";
      cursor_.expect(':');
      const char* kind = size ? cursor_.kind() : nullptr;
      if (kind != nullptr && std::string_view(kind) == "a number") {
        // Some writers make it a float (1.5e9): then it is as good as absent.
        JsonCursor whole = cursor_;
        try {
          index_.total_size = whole.unsigned_integer();
        } catch (const JsonSyntaxError&) {
          index_.total_size.reset();
        }
      }
      cursor_.skip_value(kSkippedDepth);
    } while (cursor_.take(','));
    cursor_.expect('}');
  }

  void weight_map() {
    if (cursor_.peek() != '{') {
      cursor_.fail("weight_map must be an object of tensor names and file names");
    }
    cursor_.expect('{');
    if (cursor_.take('}')) return;
    index_.items.reserve(size_ / kShortItem);
    do {
      ShardIndex::Item& item = index_.items.emplace_back();
      const std::string_view tensor = cursor_.string(scratch_);
      // With escapes it lies in the scratch string, which the next one overwrites.
      item.tensor =
          tensor.data() == scratch_.data() ? index_.unescaped.emplace_back(tensor) : tensor;
      cursor_.expect(':');
      if (cursor_.peek() != '"') {
        cursor_.fail("the shard of tensor " + quote_text(item.tensor) + " must be a string");
      }
      item.file = file_number(cursor_.string(scratch_), item.tensor);
    } while (cursor_.take(','));
    cursor_.expect('}');
  }

  std::uint32_t file_number(std::string_view file, std::string_view tensor) {
    // Neighbours mostly lie in the same shard.
    if (!index_.files.empty() && index_.files[last_] == file) return last_;
    const auto number = static_cast<std::uint32_t>(index_.files.size());
    const auto [place, fresh] = numbers_.try_emplace(std::string(file), number);
    if (fresh) {
      if (!plain_file_name(file)) {
        bad(name_, Defect::kUnsafeShard,
            "the shard name " + quote_text(file) + " of tensor " + quote_text(tensor) +
                " is unsafe: a plain file name in the same folder is needed",
            "do not use this checkpoint unless you trust its source", std::string(tensor));
      }
      index_.files.emplace_back(file);
    }
    last_ = place->second;
    return last_;
  }

  void sort() {
    auto& files = index_.files;
    std::vector<std::uint32_t> order(files.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return files[a] < files[b]; });
    std::vector<std::uint32_t> place(files.size());
    std::vector<std::string> sorted(files.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) {
      place[order[i]] = i;
      sorted[i] = std::move(files[order[i]]);
    }
    files = std::move(sorted);
    auto& items = index_.items;
    for (auto& item : items) item.file = place[item.file];
    const auto not_before = [](const ShardIndex::Item& a, const ShardIndex::Item& b) {
      return !(a.tensor < b.tensor);
    };
    // As it should be: then no name is there twice.
    if (std::adjacent_find(items.begin(), items.end(), not_before) == items.end()) return;
    sort_runs(items, [](const ShardIndex::Item& a, const ShardIndex::Item& b) {
      return a.tensor < b.tensor;
    });
    const auto twice = std::adjacent_find(items.begin(), items.end(), not_before);
    if (twice != items.end()) {
      bad(name_, Defect::kIndexDuplicate,
          "weight_map has the tensor " + quote_text(twice->tensor) + " twice", "",
          std::string(twice->tensor));
    }
  }

  JsonCursor cursor_;
  std::size_t size_;
  const std::string& name_;
  std::string scratch_;
  ShardIndex index_;
  std::unordered_map<std::string, std::uint32_t> numbers_;
  std::uint32_t last_ = 0;
};

}  // namespace

ShardIndex parse_shard_index(std::string_view text, const std::string& name) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  if (text.empty()) bad(name, Defect::kIndexSyntax, "the file is empty");
  if (const std::size_t at = utf8_error(text); at != kUtf8Valid) {
    bad(name, Defect::kIndexSyntax, fmt::format("not UTF-8 at byte {}", at));
  }
  try {
    return IndexReader(text, name).read();
  } catch (const JsonSyntaxError& error) {
    const std::string_view before = text.substr(0, error.offset);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const std::size_t start = before.rfind('\n');
    const std::size_t column =
        start == std::string_view::npos ? before.size() + 1 : before.size() - start;
    bad(name, Defect::kIndexSyntax,
        fmt::format("line {}, column {}: {}", line, column, error.what()),
        text.starts_with("version https://git-lfs")
            ? "this is a Git LFS pointer, not the file itself: run 'git lfs pull'"
            : "");
  }
}

std::string shard_index_text(const std::map<std::string, std::string>& files,
                             const nlohmann::json& metadata) {
  return nlohmann::json{{"metadata", metadata}, {"weight_map", files}}.dump(2) + "\n";
}

}  // namespace ds
