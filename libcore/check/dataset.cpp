#define XXH_INLINE_ALL

#include "libcore/data/dataset.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/stop.h"
#include "libcore/check/dataset_check.h"
#include "libcore/check/near_miss.h"
#include "libcore/check/text_trouble.h"
#include "libcore/data/row_source.h"
#include "libcore/text/chat_marks.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBos = "<\uff5cbegin\u2581of\u2581sentence\uff5c>";

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
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
    seen_.begin_file(path_);
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
    size_.lengths = summarise_lengths(std::move(lengths_), tokens_ ? "tokens" : "characters");
    unlike_rest();
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
    normal_digest_ = 0;
    characters_ = 0;
    sample_.clear();
    texts(*row.row.content);
    repeated();
    if (const Script script = main_script(sample_); script != Script::kNone) {
      auto& [count, lines] = scripts_[static_cast<std::size_t>(script)];
      if (++count <= kKeptPerRule) lines.push_back(line_);
    }
    if (options_.tokenizer != nullptr || std::holds_alternative<TokenRow>(*row.row.content)) {
      tokens(row.row);
    } else {
      ++size_.usable;
      lengths_.push_back(characters_);
    }
  }

  static void mix_into(std::uint64_t& digest, std::string_view bytes) {
    const std::uint64_t both[2] = {digest, XXH3_64bits(bytes.data(), bytes.size())};
    digest = XXH3_64bits(both, sizeof both);
  }
  void mix(std::string_view bytes) {
    mix_into(digest_, bytes);
    if (options_.several_files) mix_into(normal_digest_, bytes);
  }
  void mix_text(std::string_view text) {
    mix_into(digest_, text);
    if (options_.several_files) mix_into(normal_digest_, normal_text(text));
  }

  void texts(const RowContent& content) {
    if (const auto* chat = std::get_if<Conversation>(&content)) {
      for (std::size_t i = 0; i < chat->messages.size(); ++i) message(chat->messages[i], i);
      mix(chat->tools_json);
      calls(*chat);
    } else if (const auto* text = std::get_if<TextRow>(&content)) {
      mix_text(text->text);
      begins_with_bos(text->text, "text");
      common(text->text, "text");
    } else if (const auto* pair = std::get_if<PromptCompletionRow>(&content)) {
      mix_text(pair->prompt);
      mix_text(pair->completion);
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
      labels(*tokens);
    }
  }

  void labels(const TokenRow& row) {
    if (row.labels.size() != row.ids.size()) return;
    for (std::size_t i = 0; i < row.ids.size(); ++i) {
      if (row.labels[i] == kNoTarget || row.labels[i] == row.ids[i]) continue;
      add("label-differs", fmt::format("labels[{}]", i),
          fmt::format("labels[{}] is {}, input_ids[{}] is {}", i, row.labels[i], i, row.ids[i]),
          std::to_string(row.labels[i]), fmt::format("{} or {}", row.ids[i], kNoTarget));
      return;
    }
  }

  // Names of calls against those that the row's tools declare.
  void calls(const Conversation& chat) {
    nlohmann::json tools;
    if (chat.tools_json.empty() || try_parse_json(chat.tools_json, true, tools)) return;
    std::set<std::string> declared;
    for (const nlohmann::json& tool : tools) {
      const nlohmann::json function =
          tool.is_object() && tool.contains("function") ? tool.at("function") : tool;
      if (!function.is_object() || !function.contains("name")) return;
      if (!function.at("name").is_string()) return;
      declared.insert(function.at("name").get<std::string>());
    }
    for (std::size_t i = 0; i < chat.messages.size() && !declared.empty(); ++i) {
      for (const ToolCall& call : chat.messages[i].tool_calls) {
        if (declared.count(call.name) > 0) continue;
        const std::string field = fmt::format("message {}", i + 1);
        add("unknown-tool", field,
            fmt::format("{} calls {}, the row's tools declare {}", field, quote_text(call.name),
                        some_names({declared.begin(), declared.end()}, "function")),
            call.name);
      }
    }
  }

  void message(const Message& message, std::size_t i) {
    const std::string field = fmt::format("message {}", i + 1);
    const std::string text = message.content.value_or("");
    mix(std::to_string(static_cast<int>(message.role)));
    mix_text(text);
    if (message.reasoning) mix_text(*message.reasoning);
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
    // The form of calls has its own rule; a role inside an answer is another turn.
    for (const std::string_view role : {marks::kUser, marks::kAssistant}) {
      const std::size_t at = text.find(role);
      if (at == std::string_view::npos) continue;
      add("control-token-in-text", field,
          fmt::format("{} has the control token {} at byte {}", field, role, at),
          std::string(role));
      break;
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
    for (const TextTrouble& trouble : text_troubles(text)) {
      add(trouble.rule, field,
          fmt::format("{} has {} at byte {}", field, trouble.what, trouble.offset), trouble.what);
    }
    // Bytes that begin a character.
    characters_ += std::count_if(text.begin(), text.end(), [](char c) {
      return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u;
    });
    constexpr std::size_t kSample = 4096;
    if (sample_.size() < kSample) sample_ += text.substr(0, kSample);
  }

  void repeated() {
    const SeenRows::Place* place = seen_.meet(digest_, line_);
    if (place == nullptr) {
      almost_repeated();
      return;
    }
    if (place->file == seen_.file()) {
      add("duplicate-row", "", fmt::format("the row is the same as that of line {}", place->line),
          std::to_string(place->line));
    } else {
      add("shared-row", "",
          fmt::format("the row is that of line {} of {}", place->line, seen_.name(*place)),
          std::to_string(place->line));
    }
  }

  void almost_repeated() {
    if (!options_.several_files) return;
    const SeenRows::Place* place = seen_.meet_alike(normal_digest_, line_);
    if (place == nullptr || place->file == seen_.file()) return;
    add("nearly-shared-row", "",
        fmt::format("but for case, white space and punctuation the row is that of line {} of {}",
                    place->line, seen_.name(*place)),
        std::to_string(place->line));
  }

  // Rows in another script than nearly all others.
  void unlike_rest() {
    constexpr std::int64_t kEnough = 100;
    constexpr std::int64_t kRest = 50;  // one row in so many may be otherwise
    std::int64_t all = 0;
    std::size_t main = 0;
    for (std::size_t i = 0; i < scripts_.size(); ++i) {
      all += scripts_[i].first;
      if (scripts_[i].first > scripts_[main].first) main = i;
    }
    const std::int64_t others = all - scripts_[main].first;
    if (all < kEnough || others * kRest > all) return;
    for (std::size_t i = 0; i < scripts_.size(); ++i) {
      if (i == main) continue;
      for (const std::int64_t line : scripts_[i].second) {
        line_ = line;
        add("script-unlike-rest", "",
            fmt::format("the row is in {} letters, {} of {} rows are in {} ones",
                        script_name(static_cast<Script>(i)), format_count(scripts_[main].first),
                        format_count(all), script_name(static_cast<Script>(main))),
            std::string(script_name(static_cast<Script>(i))));
      }
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
    lengths_.push_back(result.example->whole_length);
    tokens_ = true;
    size_.tokens += length;
    size_.longest = std::max(size_.longest, length);
    if (result.example->truncated) {
      add("over-cutoff", "",
          fmt::format("the row has {} tokens and is cut to {}", result.example->whole_length,
                      options_.cutoff_len),
          std::to_string(result.example->whole_length), std::to_string(options_.cutoff_len));
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
  std::uint64_t normal_digest_ = 0;
  std::int64_t characters_ = 0;  // of the row's texts
  std::string sample_;           // of the row's texts, one behind the other
  bool tokens_ = false;          // lengths_ are tokens
  std::vector<std::int64_t> lengths_;
  // Rows by their main script: how many, and the first lines.
  std::array<std::pair<std::int64_t, std::vector<std::int64_t>>, kScripts> scripts_;
};

}  // namespace

const SeenRows::Place* SeenRows::meet(std::uint64_t digest, std::int64_t line) {
  const auto [at, fresh] = rows_.try_emplace(digest, Place{file_, line});
  return fresh ? nullptr : &at->second;
}

const SeenRows::Place* SeenRows::meet_alike(std::uint64_t digest, std::int64_t line) {
  const auto [at, fresh] = alike_.try_emplace(digest, Place{file_, line});
  return fresh ? nullptr : &at->second;
}

DatasetSize check_dataset(const fs::path& path, const DatasetCheckOptions& options, SeenRows& seen,
                          Findings& findings) {
  return DatasetCheck(path, options, seen, findings).run();
}

}  // namespace ds::check
