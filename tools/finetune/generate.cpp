#include "tools/finetune/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/stop.h"
#include "libcore/data/formats.h"
#include "libcore/model/generate.h"
#include "tools/finetune/session.h"

namespace ds::finetune {

namespace {

Conversation read_conversation(const std::string& path) {
  auto json = nlohmann::ordered_json::parse(read_file(path), nullptr, false);
  if (json.is_array()) json = nlohmann::ordered_json{{"messages", std::move(json)}};
  if (!json.is_object() || !json.contains("messages")) {
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{}: not a JSON array of messages nor an object with \"messages\"", path),
        "write it as [{\"role\": \"user\", \"content\": \"...\"}]");
  }
  // A conversation to be continued need not end with an answer; give the reader one to check and
  // take it off again.
  auto& messages = json["messages"];
  const bool open = messages.is_array() && !messages.empty() && messages.back().is_object() &&
                    messages.back().value("role", "") != "assistant";
  if (open) messages.push_back({{"role", "assistant"}, {"content", "-"}});
  ConvertedRow row = convert_row(json, DataFormat::kMessages);
  if (!row.content) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: {}", path, row.problem.reason));
  }
  auto conversation = std::get<Conversation>(std::move(*row.content));
  if (open) conversation.messages.pop_back();
  return conversation;
}

// Bytes of `text` that end with a whole character; the rest waits for the next token.
std::size_t whole_characters(const std::string& text) {
  const std::size_t size = text.size();
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, size); ++back) {
    const auto byte = static_cast<unsigned char>(text[size - back]);
    if ((byte & 0xC0u) == 0x80u) continue;
    const std::size_t length = byte >= 0xF0u ? 4 : byte >= 0xE0u ? 3 : byte >= 0xC0u ? 2 : 1;
    return length > back ? size - back : size;
  }
  return size;
}

}  // namespace

void run_generate(const GenerateSettings& settings, cli::Run& run) {
  if (settings.prompt.empty() == settings.messages.empty()) {
    throw Error(ExitCode::kUsage, "generate needs exactly one of --prompt and --messages");
  }
  const BaseModel base = find_base(settings.model.model);
  const Tokenizer& tokenizer = base.require_tokenizer();
  std::string said;
  const ChatTemplate kind = choose_template(settings.chat_template, base, said);
  if (!said.empty()) run.warn(said);

  std::vector<std::int32_t> prompt;
  if (settings.raw) {
    if (tokenizer.bos_id() >= 0) prompt.push_back(tokenizer.bos_id());
    const auto ids = tokenizer.encode(settings.prompt);
    prompt.insert(prompt.end(), ids.begin(), ids.end());
  } else {
    Conversation conversation;
    if (settings.messages.empty()) {
      conversation.messages.push_back({.role = Role::kUser, .content = settings.prompt});
    } else {
      conversation = read_conversation(settings.messages);
    }
    RenderOptions options{.kind = kind,
                          .add_generation_prompt = true,
                          .thinking = conversation.thinking.value_or(settings.thinking)};
    if (tokenizer.bos_id() >= 0) {
      options.bos = std::string(tokenizer.token_bytes(tokenizer.bos_id()));
    }
    if (tokenizer.eos_id() >= 0) {
      options.eos = std::string(tokenizer.token_bytes(tokenizer.eos_id()));
    }
    prompt = tokenizer.encode(render_chat(conversation, options).text);
  }

  const std::int64_t positions = static_cast<std::int64_t>(prompt.size()) + settings.max_new_tokens;
  const auto model = load_for_inference(base, settings.model, positions);
  Device device = Device::cpu(run.threads());
  Arena saved("activations");
  Arena scratch("workspace");
  Exec exec{.device = device, .saved = saved, .scratch = scratch, .dtype = model->dtype()};
  GenerateOptions options{.max_new_tokens = settings.max_new_tokens,
                          .temperature = settings.temperature,
                          .top_p = settings.top_p,
                          .seed = static_cast<std::uint64_t>(settings.seed),
                          .stop_ids = base.config.eos_token_ids,
                          .vocab_limit = tokenizer.vocab_size()};
  if (options.stop_ids.empty() && tokenizer.eos_id() >= 0) {
    options.stop_ids.push_back(tokenizer.eos_id());
  }
  // Bytes of an unfinished character wait for the next token.
  std::string pending;
  std::string whole;
  const bool stream = !run.json_output();
  const auto generated =
      generate(*model, exec, {prompt}, options, 1, [&](std::size_t, std::int32_t token) {
        pending += tokenizer.token_bytes(token);
        const std::size_t ready = whole_characters(pending);
        if (stream) run.write_stdout(pending.substr(0, ready));
        whole += pending.substr(0, ready);
        pending.erase(0, ready);
        return !stop_requested();
      });
  whole = tokenizer.decode(generated[0].ids, true);
  if (stream) {
    if (!pending.empty()) run.write_stdout("\xEF\xBF\xBD");
    run.write_stdout("\n");
  } else {
    run.product("", {{"text", whole},
                     {"prompt_tokens", prompt.size()},
                     {"tokens", generated[0].ids.size()},
                     {"stopped", generated[0].stopped}});
  }
  if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped");
}

}  // namespace ds::finetune
