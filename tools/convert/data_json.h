// Rows as JSON text, written as Python's json.dumps(row, ensure_ascii=False) does.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/data/formats.h"
#include "libcore/text/message.h"

namespace ds::convert {

// Each appends one object without a line break. Texts must be UTF-8.
void append_string(std::string& out, std::string_view text);
void append_text_row(std::string& out, std::string_view text);
// labels holds ids and -100.
void append_token_row(std::string& out, const std::vector<std::int32_t>& ids,
                      const std::vector<std::int32_t>& labels);
// {"messages": [...]} and, where there are any, "tools" and "thinking". Answers that are not to be
// learned have "loss": false.
void append_messages_row(std::string& out, const Conversation& conversation,
                         const std::vector<std::size_t>& masked);
// {"instruction", "input", "output"} and, where there are any, "system" and "history". False, with
// `problem` set and nothing appended, for what the format has no place for: tools, calls, results,
// turns that do not alternate.
bool append_alpaca_row(std::string& out, const Conversation& conversation, RowRemark& problem);
// {"conversations": [{"from", "value"}]} and, where there are any, "system" and "tools". What the
// format has no place for (words or reasoning beside calls) is left out and told in `repairs`.
void append_sharegpt_row(std::string& out, const Conversation& conversation,
                         std::vector<RowRemark>& repairs);

}  // namespace ds::convert
