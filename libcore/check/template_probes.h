// What a chat template writes, compared with what the native renderer writes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "libcore/text/chat_template.h"

namespace ds::check {

struct TemplateVerdict {
  enum class Kind {
    kSame,     // every probe gives the same text
    kDiffers,  // at `probe` first
    kFails,    // raises at `probe`; what
    kSyntax,   // no Jinja; line, what
    kUnknown,  // cannot be judged; line, what ("uses ..." or "needs ...")
  };
  Kind kind = Kind::kSame;
  int probes = 0;  // that were compared
  int others = 0;  // that differ or fail, beyond the first one
  std::string probe;
  int line = 0;
  std::string what;
  std::size_t offset = 0;  // kDiffers: the first byte that differs
  std::string found;       // what the template writes around it
  std::string expected;    // what the native renderer writes there
};

// Renders conversations of every kind (system texts, turns, reasoning, prefix, tool calls, results,
// prompts, thinking on and off) with the template `text` and natively as `kind`. What `kind` has no
// form for is left out. Tools that are passed to the template may be ignored, as published
// templates do, or written as the model card's block.
TemplateVerdict judge_chat_template(std::string_view text, ChatTemplate kind);

}  // namespace ds::check
