// What a dataset needs on the way from V3 to V3.1.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/check/compatibility.h"
#include "libcore/data/row_source.h"
#include "libcore/text/chat_marks.h"

namespace ds::check {
namespace {

constexpr std::int32_t kAssistantId = 128804;
constexpr std::int32_t kThinkId = 128798;
constexpr std::int32_t kThinkEndId = 128799;
constexpr const char* kCard = "DeepSeek-V3.1 model card and chat template";
constexpr const char* kConvert = "deepseek-convert data IN OUT --to messages";

// What is looked for, in the order of the rows.
enum What {
  kCalls,
  kResults,
  kHistory,
  kLineBreak,
  kThinkingTools,
  kForms,
  kText,
  kTokens,
  kCount
};

struct Subject {
  const char* requirement;
  const char* found;  // behind the number of rows
  const char* fine;
  const char* action;
  const char* source;
  const char* rule;
};
constexpr std::array<Subject, kCount> kSubjects{{
    {"tool calls", "have calls in V3's grammar in their text", "no call in V3's grammar", kConvert,
     kCard, "migration-data-calls"},
    {"tool results", "have results in V3's wrapper in their text", "no result in V3's wrapper",
     kConvert, kCard, "migration-data-calls"},
    {"reasoning in history",
     "have reasoning in an answer before the last, which V3's template keeps and V3.1's drops",
     "no reasoning before the last answer",
     "to learn from it, end a row at each answer with reasoning; otherwise none: V3.1's template "
     "drops it",
     kCard, "migration-data-history"},
    {"form of reasoning", "open it with <think> and a line break, as R1 does; V3.1 has none",
     "no line break of R1 behind <think>",
     "give it as reasoning_content, rendered by deepseek-convert data IN OUT --to text "
     "--template v3.1 --reasoning keep",
     kCard, "migration-data-think"},
    {"thinking and tools", "ask for thinking and have tools; calls are not for thinking mode",
     "no row asks for thinking and has tools", "set thinking to false in these rows", kCard,
     "migration-data-thinking"},
    {"form of messages", "have a form that V3.1's template mishandles",
     "no form that V3.1's template mishandles", kConvert, kCard, "migration-data-forms"},
    {"rendered text", "are rendered without </think> or <think> behind <\uff5cAssistant\uff5c>",
     "no text rendered by V3's template",
     "deepseek-convert data IN MID --from text --template v3 --to messages, then deepseek-convert "
     "data MID OUT --to text --template v3.1",
     kCard, "migration-data-text"},
    {"tokens", "have 128804 (<\uff5cAssistant\uff5c>) without 128798 or 128799 behind it",
     "no answer begins without its think token",
     "deepseek-convert data IN MID --from tokens --to text --tokenizer V3; then as rendered text, "
     "and deepseek-convert data MID OUT --to tokens --tokenizer V3.1",
     "tokenizer.json of DeepSeek-V3 and V3.1", "migration-data-tokens"},
}};

// Kinds of repairs (libcore/data/formats.h) that the published template would not survive.
constexpr std::array<std::string_view, 9> kMishandled{
    "empty_tool_calls",        "arguments_object", "arguments_missing",
    "arguments_encoded_twice", "joined_parts",     "empty_content",
    "function_call",           "content_object",   "enable_thinking"};

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

class DatasetMigration {
 public:
  DatasetMigration(const std::filesystem::path& path, Generation from)
      : path_(path.string()), subject_(fmt::format("{} to v3.1", generation_name(from))) {}

  CompatibilityRows run() {
    try {
      SourceOptions options{.encoding = EncodingPolicy::kReplace};
      options.rules.answers = false;
      options.rules.repair_null = true;
      RowSource source(TextWindow(std::filesystem::path(path_)), path_, options);
      for (SourceRow row; source.next(row);) {
        if (stop_requested()) {
          throw Error(ExitCode::kInterrupted, "interrupted while reading rows");
        }
        ++rows_read_;
        line_ = row.line;
        seen_.fill(false);
        one(row.row);
      }
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      return {};  // the plain check says why
    }
    return result();
  }

 private:
  struct Count {
    std::int64_t rows = 0;
    std::int64_t line = 0;
    std::string field;
  };

  void note(What what, const std::string& field) {
    applies_[what] = true;
    if (seen_[what]) return;
    seen_[what] = true;
    Count& count = counts_[what];
    if (++count.rows == 1) {
      count.line = line_;
      count.field = field;
    }
  }

  void one(const ConvertedRow& row) {
    for (const RowRemark& repair : row.repairs) {
      if (std::find(kMishandled.begin(), kMishandled.end(), repair.kind) == kMishandled.end()) {
        continue;
      }
      note(kForms, repair.field);
      ++forms_[repair.kind];
    }
    if (!row.content) return;
    if (const auto* chat = std::get_if<Conversation>(&*row.content)) {
      conversation(*chat);
    } else if (const auto* text = std::get_if<TextRow>(&*row.content)) {
      rendered(text->text, "text");
    } else if (const auto* pair = std::get_if<PromptCompletionRow>(&*row.content)) {
      rendered(pair->prompt + pair->completion, "prompt");
    } else if (const auto* tokens = std::get_if<TokenRow>(&*row.content)) {
      ids(tokens->ids);
    }
  }

  void conversation(const Conversation& chat) {
    for (const What what : {kCalls, kResults, kHistory, kLineBreak, kThinkingTools, kForms}) {
      applies_[what] = true;
    }
    std::size_t last = 0;
    bool calls = !chat.tools_json.empty();
    for (std::size_t i = 0; i < chat.messages.size(); ++i) {
      if (chat.messages[i].role == Role::kAssistant) last = i;
      calls = calls || !chat.messages[i].tool_calls.empty();
    }
    for (std::size_t i = 0; i < chat.messages.size(); ++i) {
      const Message& message = chat.messages[i];
      const std::string field = fmt::format("message {}", i + 1);
      const std::string_view text = message.content ? *message.content : std::string_view();
      marks_of(text, field);
      if (message.role != Role::kAssistant) continue;
      const bool reasons = message.reasoning.has_value() || has(text, marks::kThinkEnd);
      if (reasons && i < last) note(kHistory, field);
      if (has(text, "<think>\n")) note(kLineBreak, field);
    }
    if (calls && chat.thinking == true) note(kThinkingTools, "thinking");
  }

  void marks_of(std::string_view text, const std::string& field) {
    const std::string v3 = "function" + std::string(marks::kSeparator);
    if (has(text, v3)) note(kCalls, field);
    if (has(text, marks::kOutputsBegin)) note(kResults, field);
  }

  void rendered(std::string_view text, const std::string& field) {
    applies_[kText] = true;
    for (std::size_t at = text.find(marks::kAssistant); at != std::string_view::npos;
         at = text.find(marks::kAssistant, at + 1)) {
      const std::string_view rest = text.substr(at + marks::kAssistant.size());
      if (!rest.starts_with(marks::kThinkEnd) && !rest.starts_with(marks::kThink)) {
        note(kText, field);
      } else if (rest.starts_with("<think>\n")) {
        note(kLineBreak, field);
      }
    }
    marks_of(text, field);
  }

  void ids(const std::vector<std::int32_t>& ids) {
    applies_[kTokens] = true;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] != kAssistantId) continue;
      const std::int32_t next = i + 1 < ids.size() ? ids[i + 1] : -1;
      if (next != kThinkId && next != kThinkEndId) note(kTokens, "input_ids");
    }
  }

  CompatibilityRows result() const {
    CompatibilityRows rows;
    for (std::size_t i = 0; i < kSubjects.size(); ++i) {
      if (!applies_[i]) continue;
      const Subject& subject = kSubjects[i];
      const Count& count = counts_[i];
      CompatibilityRow row{.section = "migration",
                           .subject = subject_,
                           .requirement = subject.requirement,
                           .verdict = count.rows > 0 ? Verdict::kNeeds : Verdict::kOk,
                           .detail = subject.fine,
                           .action = {},
                           .source = subject.source,
                           .rule = {},
                           .file = path_};
      if (count.rows > 0) {
        row.detail = fmt::format("{} of {} rows {}, first line {}, {}", format_count(count.rows),
                                 format_count(rows_read_), subject.found, count.line, count.field);
        if (i == kForms) row.detail += kinds();
        row.action = subject.action;
        row.rule = subject.rule;
        row.line = count.line;
        row.key = count.field;
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

  std::string kinds() const {
    std::string text;
    for (const auto& [kind, count] : forms_) {
      text += fmt::format("{}{} {}", text.empty() ? ": " : ", ", kind, format_count(count));
    }
    return text;
  }

  std::string path_;
  std::string subject_;
  std::int64_t rows_read_ = 0;
  std::int64_t line_ = 0;
  std::array<bool, kCount> seen_{};     // in this row
  std::array<bool, kCount> applies_{};  // the file has rows it can be said of
  std::array<Count, kCount> counts_;
  std::map<std::string, std::int64_t> forms_;
};

}  // namespace

CompatibilityRows check_dataset_migration(const std::filesystem::path& path, Generation from) {
  return DatasetMigration(path, from).run();
}

}  // namespace ds::check
