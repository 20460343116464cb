#define XXH_INLINE_ALL

#include "libcore/data/dataset.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/check/dataset_check.h"
#include "libcore/check/near_miss.h"
#include "libcore/data/row_source.h"
#include "libcore/text/chat_marks.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBos = "<\uff5cbegin\u2581of\u2581sentence\uff5c>";

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// UTF-8 of two bytes that was read as Latin-1 or Windows-1252 and written as UTF-8 again: U+00C2 or
// U+00C3, and a character of U+0080..U+00BF behind it; or the three of a typographic quote.
bool is_mojibake(std::string_view text) {
  for (std::size_t at = text.find('\xc3'); at != std::string_view::npos && at + 3 < text.size();
       at = text.find('\xc3', at + 1)) {
    const auto second = static_cast<unsigned char>(text[at + 1]);
    const auto third = static_cast<unsigned char>(text[at + 2]);
    const auto fourth = static_cast<unsigned char>(text[at + 3]);
    if ((second == 0x82 || second == 0x83) && third == 0xc2 && fourth >= 0x80 && fourth <= 0xbf) {
      return true;
    }
  }
  return has(text, "\u00e2\u20ac\u2122") || has(text, "\u00e2\u20ac\u0153");
}

class DatasetCheck {
 public:
  DatasetCheck(const fs::path& path, const DatasetCheckOptions& options, SeenRows& seen,
               Findings& findings)
      : path_(path.string()), options_(options), seen_(seen), findings_(findings) {
    rows_.chat_template = options.chat_template;
    rows_.cutoff_len = options.cutoff_len;
    rows_.vocab_size = options.vocab_size;
  }

  DatasetSize run() {
    seen_.begin_file();
    try {
      RowSource source(path_, EncodingPolicy::kSkip);
      for (SourceRow row; source.next(row);) {
        if (stop_requested()) {
          throw Error(ExitCode::kInterrupted, "interrupted while reading rows");
        }
        ++size_.rows;
        one(row);
      }
      if (source.format()) size_.format = data_format_name(*source.format());
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      findings_.add("dataset-unreadable",
                    {.file = path_, .message = error.what(), .fix = error.hint()});
      return size_;
    }
    if (size_.usable == 0) {
      findings_.add("no-usable-row", {.file = path_,
                                      .message = fmt::format("{}: none of the {} rows can be used",
                                                             path_, format_count(size_.rows)),
                                      .found = "0"});
    }
    return size_;
  }

 private:
  void add(std::string_view rule, const std::string& field, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    findings_.add(rule, {.file = path_,
                         .line = line_,
                         .key = field,
                         .message = fmt::format("{}: line {}: {}", path_, line_, what),
                         .found = found,
                         .expected = expected});
  }
  void remark(const RowRemark& remark, std::int64_t column = 0) {
    std::string rule = remark.kind;
    std::replace(rule.begin(), rule.end(), '_', '-');
    add(rule, remark.field,
        column > 0 ? fmt::format("column {}: {}", column, remark.reason) : remark.reason);
  }

  void one(const SourceRow& row) {
    line_ = row.line;
    for (const RowRemark& repair : row.row.repairs) remark(repair);
    if (!row.row.content) {
      remark(row.row.problem, row.column);
      return;
    }
    digest_ = 0;
    texts(*row.row.content);
    repeated();
    if (options_.tokenizer != nullptr || std::holds_alternative<TokenRow>(*row.row.content)) {
      tokens(row.row);
    } else {
      ++size_.usable;
    }
  }

  void mix(std::string_view text) {
    const std::uint64_t both[2] = {digest_, XXH3_64bits(text.data(), text.size())};
    digest_ = XXH3_64bits(both, sizeof both);
  }

  void texts(const RowContent& content) {
    if (const auto* chat = std::get_if<Conversation>(&content)) {
      for (std::size_t i = 0; i < chat->messages.size(); ++i) message(chat->messages[i], i);
      mix(chat->tools_json);
    } else if (const auto* text = std::get_if<TextRow>(&content)) {
      mix(text->text);
      begins_with_bos(text->text, "text");
      common(text->text, "text");
    } else if (const auto* pair = std::get_if<PromptCompletionRow>(&content)) {
      mix(pair->prompt);
      mix(pair->completion);
      begins_with_bos(pair->prompt, "prompt");
      control(pair->prompt, "prompt");
      common(pair->prompt, "prompt");
      answer(pair->completion, "completion");
      common(pair->completion, "completion");
    } else if (const auto* tokens = std::get_if<TokenRow>(&content)) {
      const auto bytes = [](const std::vector<std::int32_t>& ids) {
        return std::string_view(reinterpret_cast<const char*>(ids.data()),
                                ids.size() * sizeof(std::int32_t));
      };
      mix(bytes(tokens->ids));
      mix(bytes(tokens->labels));
    }
  }

  void message(const Message& message, std::size_t i) {
    const std::string field = fmt::format("message {}", i + 1);
    const std::string text = message.content.value_or("");
    mix(std::to_string(static_cast<int>(message.role)));
    mix(text);
    if (message.reasoning) mix(*message.reasoning);
    for (const ToolCall& call : message.tool_calls) {
      mix(call.name);
      mix(call.arguments);
    }
    begins_with_bos(text, field);
    if (message.role == Role::kAssistant) {
      answer(text, field);
    } else {
      control(text, field);
    }
    common(text, field);
  }

  // With a tokenizer its own rule says so.
  void begins_with_bos(std::string_view text, const std::string& field) {
    if (options_.tokenizer != nullptr || !text.starts_with(kBos)) return;
    add("bos-in-text", field, fmt::format("{} begins with {}", field, kBos), std::string(kBos));
  }

  void control(std::string_view text, const std::string& field) {
    if (!has(text, "<")) return;
    for (const std::string& token : control_tokens()) {
      const std::size_t at = text.find(token);
      // Tags of reasoning are ordinary words in a question about them.
      if (at == std::string_view::npos || token.find("think>") != std::string::npos) continue;
      if (token == kBos && at == 0) continue;
      add("control-token-in-text", field,
          fmt::format("{} has the control token {} at byte {}", field, token, at), token);
      return;
    }
  }

  void answer(std::string_view text, const std::string& field) {
    if (has(text, marks::kThink) && !has(text, marks::kThinkEnd)) {
      add("unclosed-think", field, fmt::format("{} has <think> and no </think>", field));
    }
    const std::string v3 = "function" + std::string(marks::kSeparator);
    if (has(text, v3)) {
      add("v3-calls", field, fmt::format("{} has a call in the grammar of V3 ({}...)", field, v3),
          v3);
    }
  }

  void common(std::string_view text, const std::string& field) {
    for (const NearMiss& miss : near_misses(text, 1)) {
      add("near-miss-in-text", field,
          fmt::format("{} has {} at byte {}, the control token is {}", field,
                      quote_text(miss.found), miss.offset, quote_text(miss.meant)),
          miss.found, miss.meant);
    }
    if (has(text, "\ufffd")) {
      add("replacement-character", field,
          fmt::format("{} has U+FFFD at byte {}", field, text.find("\ufffd")));
    }
    if (is_mojibake(text)) {
      add("mojibake", field, fmt::format("{} has UTF-8 that was read as Latin-1", field));
    }
  }

  void repeated() {
    const SeenRows::Place* place = seen_.meet(digest_, line_);
    if (place == nullptr) return;
    if (place->file == seen_.file()) {
      add("duplicate-row", "", fmt::format("the row is the same as that of line {}", place->line),
          std::to_string(place->line));
    } else {
      add("shared-row", "",
          fmt::format("the row is that of line {} of an earlier dataset", place->line),
          std::to_string(place->line));
    }
  }

  void tokens(const ConvertedRow& row) {
    const TokenizedRow result = tokenize_row(row, rows_, options_.tokenizer);
    for (const RowRemark& repair : result.repairs) remark(repair);
    if (!result.example) {
      remark(result.problem);
      return;
    }
    ++size_.usable;
    const auto length = static_cast<std::int64_t>(result.example->ids.size());
    size_.tokens += length;
    size_.longest = std::max(size_.longest, length);
    if (result.example->truncated) {
      add("over-cutoff", "",
          fmt::format("the row is longer than {} tokens and is cut", options_.cutoff_len), "",
          std::to_string(options_.cutoff_len));
    }
  }

  std::string path_;
  const DatasetCheckOptions& options_;
  SeenRows& seen_;
  Findings& findings_;
  DatasetOptions rows_;
  DatasetSize size_;
  std::int64_t line_ = 0;
  std::uint64_t digest_ = 0;
};

}  // namespace

const SeenRows::Place* SeenRows::meet(std::uint64_t digest, std::int64_t line) {
  const auto [at, fresh] = rows_.try_emplace(digest, Place{file_, line});
  return fresh ? nullptr : &at->second;
}

DatasetSize check_dataset(const fs::path& path, const DatasetCheckOptions& options, SeenRows& seen,
                          Findings& findings) {
  return DatasetCheck(path, options, seen, findings).run();
}

}  // namespace ds::check
