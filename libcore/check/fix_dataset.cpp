// Tokens in the rows of a dataset.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/mapped_file.h"
#include "libcore/base/stop.h"
#include "libcore/check/fix.h"
#include "libcore/check/near_miss.h"
#include "libcore/data/row_source.h"
#include "libcore/text/json_scan.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kCopyPiece = std::size_t{4} << 20;
constexpr std::size_t kMostMisses = 100'000;  // of one text

template <std::size_t N>
bool among(std::string_view word, const std::array<std::string_view, N>& words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// Keys whose texts the model reads as a whole or writes itself; where a turn says who speaks, that
// counts instead.
bool is_models_text(std::string_view key) {
  constexpr std::array<std::string_view, 4> kKeys{"text", "completion", "output", "response"};
  return among(key, kKeys);
}
bool is_models_turn(std::string_view speaker) {
  constexpr std::array<std::string_view, 4> kNames{"assistant", "gpt", "chatgpt", "model"};
  return among(speaker, kNames);
}
// Not text of the conversation.
bool is_other(std::string_view key) {
  constexpr std::array<std::string_view, 6> kKeys{"tools",         "functions", "tool_calls",
                                                  "function_call", "role",      "from"};
  return among(key, kKeys);
}

// Changes the texts of one row where they stand: all its other bytes stay.
class RowEditor {
 public:
  RowEditor(const std::string& file, const DatasetFixes& wanted) : file_(file), wanted_(wanted) {}

  // `row` is valid JSON. What was done, and what was not, goes into `plan` unless it is null.
  // Returns the new row; nothing when it stays as it is.
  std::optional<std::string> edit(std::string_view row, std::int64_t line, FixPlan* plan) {
    line_ = line;
    plan_ = plan;
    row_ = row;
    done_ = 0;
    out_.clear();
    JsonScan scan(row, file_);
    walk(scan, "", "", "");
    if (done_ == 0) return std::nullopt;
    out_.append(row.substr(done_));
    return std::move(out_);
  }

 private:
  // Calls member(key), which reads the value, for every member of the object that comes next.
  template <class Member>
  static void each_member(JsonScan& scan, Member&& member) {
    scan.expect('{');
    std::string scratch;
    while (!scan.consume('}')) {
      const std::string key(scan.string(scratch));
      scan.expect(':');
      member(key);
      scan.consume(',');
    }
  }

  void walk(JsonScan& scan, const std::string& path, const std::string& key,
            const std::string& speaker) {
    const char next = scan.peek();
    if (next == '"') {
      text(scan, path, key, speaker);
    } else if (next == '[') {
      scan.expect('[');
      for (std::size_t i = 0; !scan.consume(']'); scan.consume(',')) {
        walk(scan, fmt::format("{}[{}]", path, i++), key, speaker);
      }
    } else if (next == '{') {
      // Who speaks may stand behind what is said.
      std::string who = speaker;
      const std::size_t begin = scan.offset();
      each_member(scan, [&](const std::string& name) {
        std::string scratch;
        if ((name == "role" || name == "from") && scan.peek() == '"') {
          who = scan.string(scratch);
        } else {
          scan.raw_value();
        }
      });
      scan.seek(begin);
      each_member(scan, [&](const std::string& name) {
        if (is_other(name)) {
          scan.raw_value();
        } else {
          walk(scan, path.empty() ? name : path + "." + name, name, who);
        }
      });
    } else {
      scan.raw_value();
    }
  }

  void text(JsonScan& scan, const std::string& path, const std::string& key,
            const std::string& speaker) {
    const std::size_t begin = scan.offset();
    std::string scratch;
    std::string text(scan.string(scratch));
    if (text.find('<') == std::string::npos) return;
    const bool models = speaker.empty() ? is_models_text(key) : is_models_turn(speaker);
    const bool respelt = wanted_.near_miss && respell(text, path, models);
    // A token that was misspelt until now may be one too many.
    const bool first = (wanted_.bos || respelt) && strip_bos(text, path);
    const bool last = models && (wanted_.eos || respelt) && strip_eos(text, path);
    if (!respelt && !first && !last) return;
    out_.append(row_.substr(done_, begin - done_));
    out_ += nlohmann::json(text).dump();
    done_ = scan.offset();
  }

  void stripped(const char* rule, const std::string& path, const std::string& what) {
    if (plan_ != nullptr) plan_->add({&rule_named(rule), file_, line_, path, what, ""});
  }
  bool strip_bos(std::string& text, const std::string& path) {
    const std::string& token = control_tokens()[0];
    std::size_t end = 0;
    while (std::string_view(text).substr(end).starts_with(token)) end += token.size();
    if (end == 0) return false;
    stripped("bos-in-text", path, text.substr(0, end));
    text.erase(0, end);
    return true;
  }
  bool strip_eos(std::string& text, const std::string& path) {
    const std::string& token = control_tokens()[1];
    std::string_view rest = text;
    while (rest.ends_with(token)) rest.remove_suffix(token.size());
    if (rest.size() == text.size()) return false;
    stripped("eos-in-text", path, text.substr(rest.size()));
    text.resize(rest.size());
    return true;
  }

  bool respell(std::string& text, const std::string& path, bool models) {
    static const Rule& rule = rule_named("near-miss-in-text");
    std::string out;
    std::size_t done = 0;
    for (const NearMiss& miss : near_misses(text, kMostMisses)) {
      // The tags of reasoning may stand in anyone's text.
      const bool tag = miss.meant.ends_with("think>");
      const char* reason =
          !same_letters(miss)
              ? "its letters have another case: it may be the token of another model"
          : !models && !tag
              ? "it is not the model's text: the token would speak in another role there"
              : nullptr;
      if (reason != nullptr) {
        if (plan_ != nullptr) {
          plan_->leave({&rule, file_, line_,
                        fmt::format("{} has {}: {}", path, quote_text(miss.found), reason)});
        }
        continue;
      }
      if (plan_ != nullptr) plan_->add({&rule, file_, line_, path, miss.found, miss.meant});
      out.append(text, done, miss.offset - done);
      out += miss.meant;
      done = miss.offset + miss.found.size();
    }
    if (done == 0) return false;
    text = out.append(text, done);
    return true;
  }

  const std::string& file_;
  DatasetFixes wanted_;
  std::int64_t line_ = 0;
  FixPlan* plan_ = nullptr;
  std::string_view row_;
  std::size_t done_ = 0;  // of row_: what is in out_ already
  std::string out_;
};

// f(row) for every row of JSON that can be read. False when the rows are no JSON.
template <class F>
bool each_row(const fs::path& path, F&& f) {
  RowSource source(path, EncodingPolicy::kSkip);
  if (source.container() == "CSV" || source.container() == "plain lines") return false;
  for (JsonRow text; source.next_text(text);) {
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "interrupted while reading rows");
    // Most rows have no token at all, whichever way it is written.
    if (text.text.find('<') == std::string_view::npos &&
        text.text.find("\\u003") == std::string_view::npos) {
      continue;
    }
    nlohmann::json row;
    parse_json_row(text, EncodingPolicy::kSkip, row);
    if (text.good()) f(text);
  }
  return true;
}

// The file with the texts that change written anew, everything else as it is.
void write_rows(const fs::path& path, const DatasetFixes& wanted, AtomicFile& out) {
  const std::string name = path.string();
  RowEditor editor(name, wanted);
  const MappedFile file(path);
  std::size_t done = 0;
  const auto copy_to = [&](std::size_t end) {
    for (; done < end; done += std::min(kCopyPiece, end - done)) {
      const std::size_t size = std::min(kCopyPiece, end - done);
      out.write(file.data() + done, size);
      file.dont_need(done, size);
    }
  };
  each_row(path, [&](const JsonRow& row) {
    const auto text = editor.edit(row.text, row.line, nullptr);
    if (!text) return;
    copy_to(row.offset);
    out.write(*text);
    done = row.offset + row.text.size();
  });
  copy_to(file.size());
}

}  // namespace

void plan_dataset_fixes(const fs::path& path, const DatasetFixes& wanted, FixPlan& plan) {
  const std::string name = path.string();
  RowEditor editor(name, wanted);
  bool any = false;
  const bool json = each_row(path, [&](const JsonRow& row) {
    any = editor.edit(row.text, row.line, &plan).has_value() || any;
  });
  if (!json) {
    const auto leave = [&](bool it, const char* rule) {
      if (it) plan.leave({&rule_named(rule), name, 0, "only rows of JSON are rewritten"});
    };
    leave(wanted.bos, "bos-in-text");
    leave(wanted.eos, "eos-in-text");
    leave(wanted.near_miss, "near-miss-in-text");
  }
  if (!any) return;
  std::error_code ignored;
  const std::uintmax_t bytes = fs::file_size(path, ignored);
  plan.files.push_back({path, false, ignored ? 0 : bytes,
                        [path, wanted](AtomicFile& out) { write_rows(path, wanted, out); }});
}

}  // namespace ds::check
