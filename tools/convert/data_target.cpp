#include "tools/convert/data_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/text/chat_parse.h"
#include "tools/convert/data_json.h"

namespace ds::convert {

namespace {

bool refuse(ConvertedRow& row, std::string kind, std::string reason) {
  row.problem = {std::move(kind), "", std::move(reason)};
  return false;
}

Message* last_answer(Conversation& conversation) {
  for (auto at = conversation.messages.rbegin(); at != conversation.messages.rend(); ++at) {
    if (at->role == Role::kAssistant) return &*at;
  }
  return nullptr;
}

// A prompt and its completion as a conversation of one turn.
Conversation conversation_of(PromptCompletionRow& texts) {
  Conversation conversation;
  conversation.messages.resize(2);
  conversation.messages[0].content = std::move(texts.prompt);
  conversation.messages[1].role = Role::kAssistant;
  conversation.messages[1].content = std::move(texts.completion);
  return conversation;
}

}  // namespace

Target::Target(const TargetOptions& options, const Tokenizer* tokenizer)
    : options_(options), tokenizer_(tokenizer) {
  const RenderOptions usual;
  bos_ = usual.bos;
  eos_ = usual.eos;
  if (tokenizer != nullptr) {
    if (tokenizer->bos_id() >= 0) bos_ = tokenizer->decode({tokenizer->bos_id()}, false);
    if (tokenizer->eos_id() >= 0) eos_ = tokenizer->decode({tokenizer->eos_id()}, false);
  }
  tokens_.chat_template = options.chat_template;
  tokens_.thinking = options.thinking;
  tokens_.add_generation_prompt = options.add_generation_prompt;
  tokens_.cutoff_len = std::numeric_limits<std::int64_t>::max();
  tokens_.keep_reasoning = options.keep_reasoning;
  tokens_.need_target = false;
}

RowRules Target::rules() const {
  RowRules rules;
  const bool text = options_.to == TargetFormat::kText;
  const bool rendered = text || options_.to == TargetFormat::kTokens;
  // What a template renders is its own business.
  rules.answers = !text;
  rules.prompts = rendered;
  rules.generation_prompt = options_.add_generation_prompt;
  rules.repair_null = true;
  rules.blank_text = rendered;
  rules.rewrite_calls = !rendered || options_.chat_template == ChatTemplate::kV31;
  return rules;
}

bool Target::needs_tokenizer(DataFormat from) const {
  const bool tokens = options_.to == TargetFormat::kTokens;
  return tokens != (from == DataFormat::kTokens);
}

bool Target::write(ConvertedRow& row, std::string& out) const {
  const std::size_t begin = out.size();
  const auto done = [&](bool written) {
    if (written) {
      out += '\n';
    } else {
      out.resize(begin);
    }
    return written;
  };
  RowContent& content = *row.content;
  if (tokenizer_ == nullptr && needs_tokenizer(row.format)) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("rows of format {} need a --tokenizer here", data_format_name(row.format)),
        "give the folder of tokenizer.json");
  }
  try {
    if (auto* pair = std::get_if<PromptCompletionRow>(&content)) content = conversation_of(*pair);
    if (options_.to == TargetFormat::kTokens) return done(write_tokens(row, out));
    if (auto* chat = std::get_if<Conversation>(&content)) {
      return done(write_conversation(row, *chat, out));
    }
    const auto* tokens = std::get_if<TokenRow>(&content);
    const std::string text = tokens != nullptr ? tokenizer_->decode(tokens->ids, false)
                                               : std::move(std::get<TextRow>(content).text);
    if (options_.to != TargetFormat::kText) return done(write_parsed(row, text, out));
    append_text_row(out, text);
    return done(true);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    return done(refuse(row, "bad_conversation", error.what()));
  }
}

bool Target::write_tokens(ConvertedRow& row, std::string& out) const {
  if (const auto* text = std::get_if<TextRow>(&*row.content)) {
    const std::vector<std::int32_t> ids = tokenizer_->encode(text->text);
    append_token_row(out, ids, ids);
    return true;
  }
  if (const auto* tokens = std::get_if<TokenRow>(&*row.content)) {
    append_token_row(out, tokens->ids, tokens->labels);
    return true;
  }
  TokenizedRow result = tokenize_row(row, tokens_, tokenizer_);
  if (!result.example) {
    row.problem = std::move(result.problem);
    return false;
  }
  const bool prompt = row.add_generation_prompt.value_or(options_.add_generation_prompt);
  if (!prompt && result.example->target_count() == 0) {
    return refuse(row, "no_target", "no target: nothing of the row is learned");
  }
  for (RowRemark& repair : result.repairs) row.repairs.push_back(std::move(repair));
  append_token_row(out, result.example->ids, result.example->labels);
  return true;
}

// A rendered text as messages.
bool Target::write_parsed(ConvertedRow& row, const std::string& text, std::string& out) const {
  ParsedChat parsed;
  try {
    parsed = parse_chat(text, {options_.chat_template, bos_, eos_});
  } catch (const Error& error) {
    return refuse(row, "not_rendered",
                  fmt::format("text: {} (template {})", error.what(),
                              chat_template_name(options_.chat_template)));
  }
  const bool turns = std::any_of(parsed.messages.begin(), parsed.messages.end(),
                                 [](const Message& m) { return m.role != Role::kSystem; });
  if (!turns) {
    return refuse(row, "not_rendered",
                  fmt::format("text: no turn of the {} template is in it",
                              chat_template_name(options_.chat_template)));
  }
  const auto repair = [&row](const char* kind, const char* what) {
    row.repairs.push_back({kind, "text", what});
  };
  if (parsed.prompt_at_end) {
    repair("prompt_at_end", "text: ends with a generation prompt, which is no message; left out");
  }
  if (parsed.cut_answer) {
    repair("cut_answer", "text: an answer without its end-of-sentence; kept as it is");
  }
  if (parsed.v3_calls) {
    repair("logged_calls", "text: tool calls in V3's grammar, rewritten as tool_calls");
  }
  Conversation conversation;
  conversation.messages = std::move(parsed.messages);
  conversation.thinking = parsed.thinking;
  return write_conversation(row, conversation, out);
}

bool Target::write_conversation(ConvertedRow& row, Conversation& conversation,
                                std::string& out) const {
  switch (options_.to) {
    case TargetFormat::kMessages:
      append_messages_row(out, conversation, row.masked);
      return true;
    case TargetFormat::kAlpaca:
      return append_alpaca_row(out, conversation, row.problem);
    case TargetFormat::kShareGpt:
      append_sharegpt_row(out, conversation, row.repairs);
      return true;
    case TargetFormat::kText:
    case TargetFormat::kTokens:
      break;
  }
  return write_rendered(row, conversation, out);
}

bool Target::write_rendered(ConvertedRow& row, Conversation& conversation, std::string& out) const {
  for (std::string& said : normalise_conversation(conversation, options_.chat_template)) {
    row.repairs.push_back({"for_template", "", std::move(said)});
  }
  RenderOptions render;
  render.kind = options_.chat_template;
  render.thinking = conversation.thinking.value_or(options_.thinking);
  render.add_generation_prompt = row.add_generation_prompt.value_or(options_.add_generation_prompt);
  render.bos = bos_;
  render.eos = eos_;
  const Message* last = last_answer(conversation);
  const bool form = render.kind == ChatTemplate::kV31 || render.kind == ChatTemplate::kR1;
  render.keep_last_reasoning = options_.keep_reasoning && form && conversation.thinking != false;
  if (last != nullptr && last->reasoning && !render.keep_last_reasoning) {
    row.repairs.push_back({"reasoning_left_out", "",
                           fmt::format("the last answer's reasoning, which the {} template leaves "
                                       "out",
                                       chat_template_name(render.kind))});
  }
  append_text_row(out, render_chat(conversation, render).text);
  return true;
}

}  // namespace ds::convert
