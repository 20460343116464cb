// Reading fields of a dataset row; shared by the format readers of this folder.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/data/formats.h"
#include "libcore/text/message.h"

namespace ds::rows {

using Json = nlohmann::ordered_json;

// Thrown inside convert_row: the row cannot be used.
struct BadRow {
  RowRemark problem;
};
[[noreturn]] void drop(std::string kind, std::string field, const std::string& found_and_needed);

// "null", "a list of 3", "an object", "the number 5", "the text "abc"", for messages.
std::string describe_value(const Json& value);
// The member, or nullptr when it is absent (or `object` is none).
const Json* member(const Json& object, std::string_view key);
// The member, or nullptr when it is absent or null.
const Json* find(const Json& object, std::string_view key);
Json* find(Json& object, std::string_view key);
// A text that must be there (missing_field), and must be one (bad_type).
std::string need_text(const Json& object, std::string_view key, std::string_view prefix = {});
// A text that may be absent or null (then empty).
std::string optional_text(const Json& object, std::string_view key);
// "" or only ASCII white space.
bool is_blank(std::string_view text);

// Reads one turn of messages or sharegpt form ({role, content}, {from, value}) at `field`.
// `learned` becomes false when the turn is marked as not learned. The content is moved out of it.
Message read_turn(Json& turn, const std::string& field, const RowRules& rules, ConvertedRow& row,
                  bool& learned);
// The assistant's calls: a list of {function: {name, arguments}} or {name, arguments}.
std::vector<ToolCall> read_calls(const Json& calls, const std::string& field, ConvertedRow& row);
// Arguments of a call as one JSON text.
std::string read_arguments(const Json* arguments, const std::string& field, ConvertedRow& row);
// Turns of a list, appended to `conversation`; masked indices go to row.masked. `learn` false masks
// them all. Contents are moved out of them.
void read_turns(Json& turns, const std::string& field, bool learn, const RowRules& rules,
                ConvertedRow& row, Conversation& conversation);
// RowRules::rewrite_calls. `field` and `first` as in check_conversation.
void rewrite_calls(const std::string& field, std::size_t first, ConvertedRow& row,
                   Conversation& conversation);
// A system message of the text of "system", if there is one.
void add_system(const Json& row, Conversation& conversation);
// Prompts and answers of text.
void add_exchange(std::string question, const std::string& question_field, std::string answer,
                  const std::string& answer_field, ConvertedRow& result,
                  Conversation& conversation);
// Instruction and input of an alpaca row.
std::string read_instruction(const Json& row);
// Rows of the formats that have a file of their own.
Conversation read_pair(Json& row, const RowRules& rules, ConvertedRow& result);
Conversation read_pubmedqa(const Json& row, const RowRules& rules, ConvertedRow& result);
Conversation read_clinc150(const Json& row, ConvertedRow& result);
Conversation read_banking77(const Json& row, ConvertedRow& result);
// tools, thinking and chat_template_kwargs of a row.
void read_settings(const Json& object, ConvertedRow& row, Conversation& conversation);
// What `rules` ask of the turns: calls in texts; roles, answers, unanswered last turns. `field`
// names the list of the row whose first element is message `first` of the conversation.
void check_conversation(const std::string& field, std::size_t first, const RowRules& rules,
                        ConvertedRow& row, Conversation& conversation);

}  // namespace ds::rows
