#include "tools/convert/data_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/data/dataset.h"
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
  return write_chat_tokens(row, std::get<Conversation>(*row.content), out);
}

// The tokens of the rendered text. What the assistant says is learned, and so is a token that
// reaches into it (a tokenizer without a token for </think> has such).
bool Target::write_chat_tokens(ConvertedRow& row, Conversation& conversation,
                               std::string& out) const {
  const RenderedChat chat = render(row, conversation);
  const std::vector<TokenSpan> spans = tokenizer_->encode_spans(chat.text);
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
  ids.reserve(spans.size());
  labels.reserve(spans.size());
  auto answer = chat.assistant.begin();
  bool learned = false;  // by a trainer, who never looks at the first label
  for (const TokenSpan& token : spans) {
    while (answer != chat.assistant.end() && answer->end <= token.begin) ++answer;
    const bool target =
        answer != chat.assistant.end() && token.end > answer->begin &&
        std::find(row.masked.begin(), row.masked.end(), answer->message) == row.masked.end();
    learned = learned || (target && !ids.empty());
    ids.push_back(token.id);
    labels.push_back(target ? token.id : kNoTarget);
  }
  const bool prompt = row.add_generation_prompt.value_or(options_.add_generation_prompt);
  if (!learned && !prompt) {
    return refuse(row, "no_target", "no target: nothing of the row is learned");
  }
  append_token_row(out, ids, labels);
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
  append_text_row(out, render(row, conversation).text);
  return true;
}

RenderedChat Target::render(ConvertedRow& row, Conversation& conversation) const {
  for (std::string& said : normalise_conversation(conversation, options_.chat_template)) {
    row.repairs.push_back({"for_template", "", std::move(said)});
  }
  RenderOptions render;
  render.kind = options_.chat_template;
  render.thinking = conversation.thinking.value_or(options_.thinking);
  render.add_generation_prompt = row.add_generation_prompt.value_or(options_.add_generation_prompt);
  render.bos = bos_;
  render.eos = eos_;
  Message* last = last_answer(conversation);
  const bool form = render.kind == ChatTemplate::kV31 || render.kind == ChatTemplate::kR1;
  if (options_.keep_reasoning && form && last != nullptr && conversation.thinking != false) {
    split_reasoning(*last, render.kind);
    render.keep_last_reasoning = last->reasoning && !last->reasoning->empty();
  }
  if (last != nullptr && last->reasoning && !render.keep_last_reasoning) {
    row.repairs.push_back({"reasoning_left_out", "",
                           fmt::format("the last answer's reasoning, which the {} template leaves "
                                       "out",
                                       chat_template_name(render.kind))});
  }
  return render_chat(conversation, render);
}

}  // namespace ds::convert
