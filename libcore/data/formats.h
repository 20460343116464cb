// Dataset row formats -> conversations (reference/text.md section 6).
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "libcore/text/message.h"

namespace ds {

enum class DataFormat {
  kMessages,
  kAlpaca,
  kShareGpt,
  kPromptCompletion,
  kText,
  kTokens,
  kDpo,        // pairs of answers: never found by itself unless asked for
  kPubMedQa,   // {QUESTION, CONTEXTS, final_decision, LONG_ANSWER} or the hub's spelling of it
  kClinc150,   // [text, intent] or {text, intent}
  kBanking77,  // {text, category}
};
// "messages", "alpaca", "sharegpt", "prompt_completion", "text", "tokens", "dpo", "pubmedqa",
// "clinc150", "banking77".
std::string_view data_format_name(DataFormat format);
std::optional<DataFormat> parse_data_format(std::string_view name);
// The first format whose keys a row has; nullopt when none fits. Only keys are looked at. kDpo is
// among them with `pairs`; kClinc150 and kBanking77, whose keys are those of a text, never are.
std::optional<DataFormat> detect_format(const nlohmann::ordered_json& row, bool pairs = false);
// Whether a row has the keys of `format` (a row may have those of several).
bool has_format(const nlohmann::ordered_json& row, DataFormat format);
// The keys of a row, for messages: "prompt, chosen, rejected"; what it is when it is no object.
std::string describe_keys(const nlohmann::ordered_json& row);

struct TextRow {
  std::string text;
};
struct PromptCompletionRow {
  std::string prompt;
  std::string completion;
};
// labels has the length of ids and holds ids or kNoTarget; ids are not negative.
struct TokenRow {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
};
using RowContent = std::variant<Conversation, TextRow, PromptCompletionRow, TokenRow>;

// Why a row is dropped, or what was repaired in it. Kinds are part of the report format and never
// change their meaning:
// dropped  invalid_utf8 lone_surrogate invalid_json invalid_csv unknown_format other_format
// missing_field
//          bad_type null_content content_not_text unknown_role roles_not_alternating no_answer
//          empty_answer empty_row bad_tool_call bad_tools length_mismatch bad_id bad_conversation
//          too_long no_target not_rendered not_representable
// repaired replaced_bytes duplicate_key joined_parts role_renamed empty_tool_calls arguments_object
//          arguments_missing arguments_encoded_twice arguments_not_json (kept as it is)
//          function_call content_object unanswered_turn tool_without_call (kept as it is)
//          empty_prompt (kept as it is) enable_thinking bos_in_text eos_in_text logged_calls
//          empty_content empty_text (kept as it is) cut_answer (kept as it is) prompt_at_end
//          reasoning_left_out content_left_out
struct RowRemark {
  std::string kind;
  std::string field;   // "messages[1].content"; empty: the row as a whole
  std::string reason;  // a sentence: field, value found, value needed
};

// What is asked of a row beyond its form.
struct RowRules {
  // A conversation must have an answer at its end and roles that alternate; else it may be any that
  // a template renders.
  bool answers = true;
  // A content that is null or missing is the empty text (repaired), where an answer is not due.
  bool repair_null = false;
  // Tool calls and results that stand as control tokens in the text of a turn, in the grammar of V3
  // or of V3.1, become messages of their own.
  bool rewrite_calls = false;
  // Rows of messages that ask for a generation prompt (of themselves, or with `generation_prompt`
  // when they do not say it) need no answer, and may have no message.
  bool prompts = false;
  bool generation_prompt = false;
  bool blank_text = false;   // kText: white space alone, or nothing, is kept; kTokens: no ids are
  bool chosen = true;        // kDpo: the answer that was preferred, else the other one
  bool long_answer = false;  // kPubMedQa: the conclusion, else yes, no or maybe
};

struct ConvertedRow {
  DataFormat format = DataFormat::kMessages;
  std::optional<RowContent> content;  // absent: unusable, see problem
  RowRemark problem;
  std::vector<RowRemark> repairs;
  // Assistant messages of the conversation that are not learned ("loss": false, "weight": 0).
  std::vector<std::size_t> masked;
  std::optional<bool> add_generation_prompt;  // the row's own setting
};

// Reads one row. A conversation has at least one assistant message, ends with one, and its roles
// alternate (user or tool results, then assistant; system messages anywhere), unless `rules` say
// otherwise. Never throws for bad rows. Fields: text.md section 6; in conversations also thinking,
// enable_thinking, add_generation_prompt, tools and a chat_template_kwargs object of them.
ConvertedRow convert_row(const nlohmann::ordered_json& row, DataFormat format,
                         const RowRules& rules = {});
// The same with texts moved out of `row`.
ConvertedRow take_row(nlohmann::ordered_json& row, DataFormat format, const RowRules& rules);

}  // namespace ds
