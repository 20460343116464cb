// One row -> ids and labels.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/data/dataset.h"

namespace ds {
namespace {

using Ids = std::vector<std::int32_t>;

// What the model is given, and what it answers.
struct Turn {
  Ids source;
  Ids target;
  bool learn = true;
  bool ends = false;  // target's last id is the end-of-sentence of its answer
};

struct Specials {
  std::int32_t bos = -1;
  std::int32_t eos = -1;
  std::string bos_text;
  std::string eos_text;
};

Specials specials_of(const Tokenizer& tokenizer) {
  Specials result{tokenizer.bos_id(), tokenizer.eos_id(), "", ""};
  if (result.bos >= 0) result.bos_text = tokenizer.decode({result.bos}, false);
  if (result.eos >= 0) result.eos_text = tokenizer.decode({result.eos}, false);
  return result;
}

void strip_bos(std::string& text, const Specials& specials, const std::string& field,
               std::vector<RowRemark>& repairs) {
  const std::string& bos = specials.bos_text;
  if (bos.empty() || !text.starts_with(bos)) return;
  while (text.starts_with(bos)) text.erase(0, bos.size());
  repairs.push_back({"bos_in_text", field,
                     field + ": begins with the begin-of-sentence token, which is added anyway; "
                             "left out"});
}

void strip_eos(std::string& text, const Specials& specials, const std::string& field,
               std::vector<RowRemark>& repairs) {
  const std::string& eos = specials.eos_text;
  if (eos.empty() || !text.ends_with(eos)) return;
  while (text.ends_with(eos)) text.resize(text.size() - eos.size());
  repairs.push_back({"eos_in_text", field,
                     field + ": ends with the end-of-sentence token, which is added anyway; "
                             "left out"});
}

std::vector<Turn> conversation_turns(Conversation conversation,
                                     const std::vector<std::size_t>& masked,
                                     const DatasetOptions& options, const Tokenizer& tokenizer,
                                     std::vector<RowRemark>& repairs) {
  const Specials specials = specials_of(tokenizer);
  std::vector<Message>& messages = conversation.messages;
  Message* last_answer = nullptr;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    Message& message = messages[i];
    const bool assistant = message.role == Role::kAssistant;
    if (assistant) last_answer = &message;
    if (!message.content) continue;
    const std::string field = fmt::format("message {}", i + 1);
    strip_bos(*message.content, specials, field, repairs);
    if (assistant) strip_eos(*message.content, specials, field, repairs);
  }
  RenderOptions render;
  render.kind = options.chat_template;
  render.thinking = conversation.thinking.value_or(options.thinking);
  render.bos = specials.bos_text;
  render.eos = specials.eos_text;
  const bool reasons = render.kind == ChatTemplate::kV31 || render.kind == ChatTemplate::kR1;
  if (reasons && last_answer != nullptr && conversation.thinking.value_or(true)) {
    split_reasoning(*last_answer, render.kind);
    render.keep_last_reasoning =
        last_answer->reasoning.has_value() && !last_answer->reasoning->empty();
  }
  const RenderedChat chat = render_chat(conversation, render);
  const std::string_view text = chat.text;
  std::vector<Turn> turns;
  turns.reserve(chat.assistant.size() + 1);
  std::size_t at = 0;
  for (const RenderedSpan& span : chat.assistant) {
    if (span.begin < at || span.end < span.begin || span.end > text.size()) {
      throw Error(ExitCode::kInternal, "the spans of a rendered conversation are out of order");
    }
    const std::string_view answer = text.substr(span.begin, span.end - span.begin);
    Turn& turn = turns.emplace_back();
    turn.source = tokenizer.encode(text.substr(at, span.begin - at));
    turn.target = tokenizer.encode(answer);
    turn.learn = std::find(masked.begin(), masked.end(), span.message) == masked.end();
    turn.ends = !render.eos.empty() && answer.ends_with(render.eos);
    at = span.end;
  }
  if (at < text.size()) turns.push_back({tokenizer.encode(text.substr(at)), {}, false, false});
  return turns;
}

// Text, or prompt and completion.
std::vector<Turn> text_turns(std::string prompt, std::string completion,
                             const std::string& completion_field, const Tokenizer& tokenizer,
                             std::vector<RowRemark>& repairs) {
  const Specials specials = specials_of(tokenizer);
  strip_bos(prompt, specials, "prompt", repairs);
  strip_bos(completion, specials, completion_field, repairs);
  strip_eos(completion, specials, completion_field, repairs);
  Turn turn;
  if (specials.bos >= 0) turn.source.push_back(specials.bos);
  const Ids ids = tokenizer.encode(prompt);
  turn.source.insert(turn.source.end(), ids.begin(), ids.end());
  turn.target = tokenizer.encode(completion);
  turn.ends = specials.eos >= 0;
  if (turn.ends) turn.target.push_back(specials.eos);
  return {std::move(turn)};
}

// What each turn keeps under the proportional rule, with the remaining budget; with mask_history
// the last turn comes first. The first turn's begin-of-sentence token always stays.
std::vector<KeptLengths> proportional_turns(const std::vector<Turn>& turns, bool last_first,
                                            std::int64_t limit, std::int32_t bos) {
  std::vector<KeptLengths> kept(turns.size());
  const bool apart =
      last_first && turns.size() > 1 && !turns[0].source.empty() && turns[0].source[0] == bos;
  std::int64_t left = apart ? limit - 1 : limit;
  for (std::size_t i = 0; i < turns.size() && left > 0; ++i) {
    const std::size_t k = last_first ? turns.size() - 1 - i : i;
    const auto source = static_cast<std::int64_t>(turns[k].source.size());
    kept[k] = proportional_lengths(apart && k == 0 ? source - 1 : source,
                                   static_cast<std::int64_t>(turns[k].target.size()), left);
    left -= kept[k].source + kept[k].target;
  }
  if (apart) ++kept[0].source;
  return kept;
}

void append(Example& example, const Ids& ids, std::int64_t count, bool learn) {
  const auto end = ids.begin() + count;
  example.ids.insert(example.ids.end(), ids.begin(), end);
  if (learn) {
    example.labels.insert(example.labels.end(), ids.begin(), end);
  } else {
    example.labels.insert(example.labels.end(), static_cast<std::size_t>(count), kNoTarget);
  }
}

// Removes `count` ids at `from`.
void remove_ids(Example& example, std::int64_t from, std::int64_t count) {
  example.ids.erase(example.ids.begin() + from, example.ids.begin() + from + count);
  example.labels.erase(example.labels.begin() + from, example.labels.begin() + from + count);
}

Example join_turns(const std::vector<Turn>& turns, const DatasetOptions& options,
                   std::int32_t bos) {
  std::int64_t total = 0;
  for (const Turn& turn : turns) {
    total += static_cast<std::int64_t>(turn.source.size() + turn.target.size());
  }
  Example example;
  example.whole_length = total;
  example.truncated = total > options.cutoff_len;
  const bool proportional = example.truncated && options.truncation == Truncation::kProportional;
  std::vector<KeptLengths> kept;
  if (proportional) {
    kept = proportional_turns(turns, options.mask_history, options.cutoff_len, bos);
  }
  const auto room = static_cast<std::size_t>(proportional ? options.cutoff_len : total);
  example.ids.reserve(room);
  example.labels.reserve(room);
  std::size_t last = turns.size();  // the last turn with an answer
  while (last > 0 && turns[last - 1].target.empty()) --last;
  std::vector<std::pair<std::int64_t, std::int64_t>> answers;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    const Turn& turn = turns[i];
    const KeptLengths whole{static_cast<std::int64_t>(turn.source.size()),
                            static_cast<std::int64_t>(turn.target.size())};
    const KeptLengths& lengths = proportional ? kept[i] : whole;
    append(example, turn.source, lengths.source, options.train_on_prompt);
    const auto begin = static_cast<std::int64_t>(example.ids.size());
    append(example, turn.target, lengths.target,
           turn.learn && (!options.mask_history || i + 1 == last));
    if (turn.ends) answers.emplace_back(begin, begin + lengths.target);
  }
  if (!example.truncated || proportional) return example;
  const std::int64_t excess = total - options.cutoff_len;
  if (options.truncation == Truncation::kRight) {
    remove_ids(example, options.cutoff_len, excess);
  } else {
    const std::int64_t first = bos >= 0 && example.ids[0] == bos ? 1 : 0;
    for (const auto& [begin, end] : answers) {
      const bool cut = begin < first + excess && end > first + excess;
      if (cut) example.labels[static_cast<std::size_t>(end - 1)] = kNoTarget;
    }
    remove_ids(example, first, excess);
  }
  example.ids.shrink_to_fit();
  example.labels.shrink_to_fit();
  return example;
}

Example token_example(const TokenRow& row, const DatasetOptions& options, std::int32_t bos) {
  Example example;
  example.ids = row.ids;
  example.labels = row.labels;
  example.whole_length = static_cast<std::int64_t>(row.ids.size());
  const std::int64_t excess = static_cast<std::int64_t>(row.ids.size()) - options.cutoff_len;
  example.truncated = excess > 0;
  if (!example.truncated) return example;
  const bool left = options.truncation == Truncation::kLeft;
  const std::int64_t first = bos >= 0 && row.ids[0] == bos ? 1 : 0;
  remove_ids(example, left ? first : options.cutoff_len, excess);
  return example;
}

// Ids the model has no row for.
std::optional<RowRemark> vocabulary_problem(const Example& example, bool given,
                                            const DatasetOptions& options) {
  if (options.vocab_size <= 0) return std::nullopt;
  const auto outside = [&](std::int32_t id) { return id >= options.vocab_size; };
  for (const Ids* list : {&example.ids, &example.labels}) {
    const auto at = std::find_if(list->begin(), list->end(), outside);
    if (at == list->end()) continue;
    const std::string field =
        !given ? ""
               : fmt::format("{}[{}]", list == &example.ids ? "input_ids" : "labels",
                             at - list->begin());
    return RowRemark{"bad_id", field,
                     fmt::format("{}{}token id {}, the model's vocabulary needs ids below {}",
                                 field, given ? ": " : "", *at, options.vocab_size)};
  }
  return std::nullopt;
}

}  // namespace

void split_reasoning(Message& message, ChatTemplate kind) {
  if (message.reasoning || !message.content) return;
  constexpr std::string_view kOpen = "<think>";
  constexpr std::string_view kClose = "</think>";
  const std::string_view content = *message.content;
  const std::size_t close =
      kind == ChatTemplate::kR1 ? content.rfind(kClose) : content.find(kClose);
  if (close == std::string_view::npos) return;
  std::string_view reasoning = content.substr(0, close);
  std::string_view answer = content.substr(close + kClose.size());
  const std::size_t text = reasoning.find_first_not_of(" \t\r\n");
  if (text != std::string_view::npos && reasoning.substr(text).starts_with(kOpen)) {
    reasoning.remove_prefix(text + kOpen.size());
  }
  if (reasoning.starts_with('\n')) {
    reasoning.remove_prefix(1);
    if (reasoning.ends_with('\n')) reasoning.remove_suffix(1);
    for (int i = 0; i < 2 && answer.starts_with('\n'); ++i) answer.remove_prefix(1);
  }
  message.reasoning = std::string(reasoning);
  message.content = std::string(answer);
}

KeptLengths proportional_lengths(std::int64_t source, std::int64_t target, std::int64_t limit) {
  std::int64_t most = limit;
  if (2 * target >= limit) {
    most = 2 * source < limit ? limit - source : limit * target / (source + target);
  }
  KeptLengths kept;
  kept.target = std::min(most, target);
  kept.source = std::min(std::max(limit - kept.target, std::int64_t{0}), source);
  return kept;
}

TokenizedRow tokenize_row(const ConvertedRow& row, const DatasetOptions& options,
                          const Tokenizer* tokenizer) {
  TokenizedRow result;
  const RowContent& content = row.content.value();
  const auto* tokens = std::get_if<TokenRow>(&content);
  const std::int32_t bos = tokenizer != nullptr ? tokenizer->bos_id() : -1;
  std::vector<Turn> turns;
  std::int64_t total = 0;
  if (tokens != nullptr) {
    // Checked before anything is cut away.
    const Example whole{tokens->ids, tokens->labels};
    if (auto problem = vocabulary_problem(whole, true, options)) {
      result.problem = std::move(*problem);
      return result;
    }
    total = static_cast<std::int64_t>(tokens->ids.size());
  } else if (tokenizer == nullptr) {
    result.problem = {"bad_conversation", "", "a tokenizer is needed for rows of text"};
    return result;
  } else {
    try {
      if (const auto* chat = std::get_if<Conversation>(&content)) {
        turns = conversation_turns(*chat, row.masked, options, *tokenizer, result.repairs);
      } else if (const auto* text = std::get_if<TextRow>(&content)) {
        turns = text_turns("", text->text, "text", *tokenizer, result.repairs);
      } else {
        const auto& pair = std::get<PromptCompletionRow>(content);
        turns = text_turns(pair.prompt, pair.completion, "completion", *tokenizer, result.repairs);
      }
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      result.problem = {"bad_conversation", "", error.what()};
      return result;
    }
    for (const Turn& turn : turns) {
      total += static_cast<std::int64_t>(turn.source.size() + turn.target.size());
    }
  }
  const bool refuse =
      options.truncation == Truncation::kSkip || options.truncation == Truncation::kError;
  if (refuse && total > options.cutoff_len) {
    result.problem = {
        "too_long", "",
        fmt::format("the row has {} tokens, at most {} are allowed", total, options.cutoff_len)};
    return result;
  }
  Example example =
      tokens != nullptr ? token_example(*tokens, options, bos) : join_turns(turns, options, bos);
  if (auto problem = vocabulary_problem(example, tokens != nullptr, options)) {
    result.problem = std::move(*problem);
    return result;
  }
  if (example.target_count() == 0) {
    result.problem = {
        "no_target", "",
        example.truncated
            ? fmt::format("no target is left: the row has {} tokens, the limit is {}", total,
                          options.cutoff_len)
            : fmt::format("no target: none of the row's {} tokens is learned", total)};
    return result;
  }
  result.example = std::move(example);
  return result;
}

std::optional<Example> tokenize_conversation(const Conversation& conversation,
                                             const DatasetOptions& options,
                                             const Tokenizer& tokenizer, std::string& reason) {
  ConvertedRow row;
  row.content = conversation;
  TokenizedRow result = tokenize_row(row, options, &tokenizer);
  reason = std::move(result.problem.reason);
  return std::move(result.example);
}

}  // namespace ds
