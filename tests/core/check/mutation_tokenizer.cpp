// tokenizer.json, tokenizer_config.json, generation_config.json, and the ids in config.json.
#include <fmt/format.h>

#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json example(const char* name) {
  return json::parse(read_text(source_dir() / "examples" / "nano-v3" / name));
}

// The shipped tokenizer with its first merges only, so that a thousand of it are read in a second.
struct Small {
  json tokenizer = example("tokenizer.json");
  json settings = example("tokenizer_config.json");
  json generation = example("generation_config.json");
  json config = example("config.json");

  Small() {
    constexpr std::size_t kMerges = 24;
    json& model = tokenizer["model"];
    json merges = json::array();
    std::map<std::string, int> ids;
    for (const auto& [token, id] : model["vocab"].items()) {
      if (id < 3 + 256) ids[token] = id;
    }
    for (const json& merge : model["merges"]) {
      if (merges.size() == kMerges) break;
      const std::string pair =
          merge.is_string() ? merge.get<std::string>()
                            : merge[0].get<std::string>() + " " + merge[1].get<std::string>();
      const std::size_t blank = pair.find(' ');
      if (ids.count(pair.substr(0, blank)) == 0 || ids.count(pair.substr(blank + 1)) == 0) continue;
      merges.push_back(merge);
      ids.emplace(pair.substr(0, blank) + pair.substr(blank + 1), static_cast<int>(ids.size()));
    }
    model["merges"] = merges;
    int next = static_cast<int>(ids.size());
    for (json& token : tokenizer["added_tokens"]) {
      if (token["id"] >= 3) token["id"] = next++;
    }
    model["vocab"] = ids;
    config["vocab_size"] = next;
    for (const json& token : tokenizer["added_tokens"]) {
      settings["added_tokens_decoder"][std::to_string(token["id"].get<int>())] = {
          {"content", token["content"]}, {"special", token["special"]}};
    }
  }
};

std::shared_ptr<SpoiltFolder> small_folder(const Small& small) {
  auto folder = std::make_shared<SpoiltFolder>([](const fs::path& root) {
    check::Findings findings;
    const std::string file = (root / "config.json").string();
    const auto config = check::read_config_json(root, findings);
    std::optional<ModelConfig> model;
    if (config) model = check::read_model_config(*config, file, findings);
    if (model) check::check_config(*config, *model, file, findings);
    check::check_tokenizer(root, config ? &*config : nullptr, model ? &*model : nullptr, findings);
    return findings.sorted();
  });
  write_text(folder->root() / "config.json", small.config.dump());
  write_text(folder->root() / "tokenizer.json", small.tokenizer.dump());
  write_text(folder->root() / "tokenizer_config.json", small.settings.dump());
  write_text(folder->root() / "generation_config.json", small.generation.dump());
  write_text(
      folder->root() / "special_tokens_map.json",
      json{{"bos_token", small.settings["bos_token"]}, {"eos_token", small.settings["eos_token"]}}
          .dump());
  return folder;
}

const Place kAnyKey{"", "", "*"};

// What the published files have too.
const std::vector<std::string> kNotes{"tokenizer-class", "bos-added-twice", "pad-is-eos"};

MutationGroup of_file(const char* file, const char* about, const json Small::*document,
                      const std::function<bool(const std::string&)>& skip = {}) {
  const Small small;
  const auto folder = small_folder(small);
  MutationGroup group{file, about, folder->sound(), kNotes, {}, {}};
  const auto add = [&](const std::string& subject, const std::string& change,
                       const std::string& text) {
    group.mutations.push_back(
        {subject, change, {file, "", subject}, [=] { return folder->with(file, text); }});
  };
  each_json_change(small.*document, skip,
                   [&](const std::string& path, const std::string& change, const json& changed) {
                     add(path, change, changed.dump());
                   });
  each_key_change(small.*document,
                  [&](const std::string& key, const std::string& change, const std::string& text) {
                    if (!skip || !skip(key)) add(key, change, text);
                  });
  const std::string text = (small.*document).dump();
  add("all", "cut", text.substr(0, text.size() / 2));
  add("all", "empty", "");
  add("all", "list", "[]");
  add("all", "no UTF-8", text.substr(0, 2) + "\xff" + text.substr(2));
  group.mutations.push_back(
      {"all", "removed", {file, "", ""}, [=] { return folder->without(file); }});
  return group;
}

}  // namespace

MutationGroup generation_mutations() {
  MutationGroup group = of_file("generation_config.json", "each key", &Small::generation);
  group.caught = {
      {"all", "cut|empty|list|no UTF-8", "generation-syntax", kAnyKey},
      {"*", "written twice", "generation-syntax", kAnyKey},
      {"*_id|transformers_version", "key misspelt", "misspelt-setting", kAnyKey},
      {"bos_token_id|eos_token_id", "text|boolean|object|with a fraction|huge",
       "generation-ids generation-values"},
      {"eos_token_id", "negative", "generation-ids generation-values"},
      {"bos_token_id|eos_token_id", "null|one more|one less|negative|zero|twice", "generation-ids"},
      {"pad_token_id", "text|boolean|object|negative|with a fraction|huge", "generation-values"},
  };
  return group;
}

MutationGroup tokenizer_config_mutations() {
  MutationGroup group = of_file("tokenizer_config.json", "each key, the special tokens' fields",
                                &Small::settings, [](const std::string& path) {
                                  // One of the list's entries stands for all.
                                  return path.starts_with("added_tokens_decoder.") &&
                                         !path.starts_with("added_tokens_decoder.0");
                                });
  group.caught = {
      {"all", "removed", "tokenizer-config-missing template-missing", kAnyKey},
      {"all", "empty", "tokenizer-config-syntax template-missing", kAnyKey},
      {"all|*", "cut|written twice|no UTF-8", "tokenizer-config-syntax", kAnyKey},
      {"all", "list", "tokenizer-config-syntax", kAnyKey},
      {"[bep]??_token", "key misspelt", "special-token-unnamed misspelt-setting"},
      {"chat_template", "key misspelt", "template-missing misspelt-setting"},
      {"*", "key misspelt", "misspelt-setting", kAnyKey},
      {"add_???_token", "text|number|list|object", "tokenizer-config-syntax"},
      {"add_eos_token", "flipped", "adds-eos"},
      {"added_tokens_decoder", "text|number|boolean|list", "tokenizer-config-syntax"},
      {"added_tokens_decoder.0",
       "null|text|number|boolean|list|empty",
       "tokenizer-config-syntax",
       {"", "", "added_tokens_decoder.0"}},
      {"added_tokens_decoder.0.content",
       "changed|empty",
       "added-tokens-disagree",
       {"", "", "added_tokens_decoder.0"}},
      {"added_tokens_decoder.0.content",
       "*",
       "tokenizer-config-syntax",
       {"", "", "added_tokens_decoder.0"}},
      {"added_tokens_decoder.0.special", "null|text|number|list|object|flipped",
       "added-tokens-disagree"},
      {"bos_token|eos_token|pad_token", "removed|null", "special-token-unnamed"},
      {"bos_token", "text", "ordinary-special-token bos-id special-tokens-map"},
      {"eos_token", "text", "ordinary-special-token eos-id special-tokens-map"},
      {"pad_token", "text", "ordinary-special-token"},
      {"bos_token|eos_token|pad_token", "number|boolean|list|empty", "tokenizer-config-syntax"},
      {"???_token.__type", "*", "tokenizer-config-syntax"},
      {"bos_token.content|eos_token.content", "changed", "special-token-missing special-tokens-map",
       kAnyKey},
      {"???_token.content", "changed|empty", "special-token-missing", kAnyKey},
      {"bos_token.content", "*", "tokenizer-config-syntax", {"", "", "bos_token"}},
      {"eos_token.content", "*", "tokenizer-config-syntax", {"", "", "eos_token"}},
      {"pad_token.content", "*", "tokenizer-config-syntax", {"", "", "pad_token"}},
      {"???_token.?strip|???_token.single_word", "null|text|number|list|object|flipped",
       "control-flag"},
      {"chat_template", "removed|null|empty", "template-missing"},
      {"chat_template", "number|boolean|list|object", "tokenizer-config-syntax"},
      {"chat_template", "changed", "template-writes-otherwise"},
      {"clean_up_tokenization_spaces", "text|number|list|object|flipped", "cleans-up-spaces"},
      {"model_max_length", "text|boolean|list|object|one more|zero|negative|twice|with a fraction",
       "model-max-length"},
      {"tokenizer_class", "number|boolean|list|object|changed|empty", "tokenizer-class-unknown"},
  };
  return group;
}

MutationGroup tokenizer_mutations() {
  MutationGroup group =
      of_file("tokenizer.json", "each key, one token and merge of each kind", &Small::tokenizer,
              [](const std::string& path) {
                const auto other = [&](const char* list, std::initializer_list<const char*> kept) {
                  if (!path.starts_with(list)) return false;
                  const std::string rest = path.substr(std::string(list).size());
                  return std::none_of(kept.begin(), kept.end(), [&](const std::string& one) {
                    return rest == one || rest.starts_with(one + ".");
                  });
                };
                return other("added_tokens.", {"0", "3"}) || other("model.vocab.", {"a", "!"}) ||
                       other("model.merges.", {"0", "7"});
              });
  constexpr const char* kNoFlag = "text|number|list|object";
  constexpr const char* kNoText = "removed|null|number|boolean|list|object|changed|empty";
  group.caught = {
      {"all", "removed", "tokenizer-missing", kAnyKey},
      {"all|*", "cut|no UTF-8|written twice", "tokenizer-syntax", kAnyKey},
      {"all", "*", "tokenizer-syntax", kAnyKey},
      {"added_tokens",
       "removed|key misspelt",
       "added-tokens-disagree",
       {"tokenizer_config.json", "", "*"}},
      {"added_tokens",
       "empty",
       "ordinary-special-token added-tokens-disagree",
       {"tokenizer_config.json", "", "*"}},
      {"added_tokens.0",
       "removed",
       "ordinary-special-token",
       {"tokenizer_config.json", "", "bos_token"}},
      {"added_tokens.0|added_tokens.0.content", "*", "tokenizer-syntax ordinary-special-token",
       kAnyKey},
      {"added_tokens.3", "removed", "added-tokens-disagree", {"tokenizer_config.json", "", "*"}},
      {"added_tokens.3.content",
       "changed",
       "added-tokens-disagree",
       {"tokenizer_config.json", "", "*"}},
      {"added_tokens.3.id", "twice", "token-beyond-embedding added-tokens-disagree", kAnyKey},
      {"added_tokens.?.?strip", "flipped", "control-flag", kAnyKey},
      {"added_tokens.?.special", "flipped", "control-flag added-tokens-disagree", kAnyKey},
      {"added_tokens.0.special", "removed|null", "tokenizer-syntax control-flag"},
      {"added_tokens.?.?strip|added_tokens.?.normalized|added_tokens.?.single_word|"
       "added_tokens.?.special",
       "removed|null", "tokenizer-syntax"},
      {"added_tokens.?.normalized", kNoFlag, "tokenizer-syntax", kAnyKey},
      {"added_tokens*",
       "removed|null|text|number|boolean|list|object|empty|first element twice|"
       "one more|one less|zero|negative|with a fraction|huge",
       "tokenizer-syntax", kAnyKey},
      {"added_tokens.?.single_word", "flipped", "tokenizer-syntax", kAnyKey},
      {"model|decoder", "*", "tokenizer-syntax", kAnyKey},
      {"decoder.type|normalizer.type|pre_tokenizer.type|*.pretokenizers.?.type|"
       "*.pretokenizers.?.behavior|model.merges.?.?",
       kNoText, "tokenizer-syntax", kAnyKey},
      {"post_processor.type", kNoText, "tokenizer-syntax"},
      {"model.byte_fallback", "flipped", "tokenizer-kind", kAnyKey},
      {"model.byte_fallback|model.ignore_merges", kNoFlag, "tokenizer-syntax", kAnyKey},
      {"model.continuing_subword_prefix|model.dropout|model.end_of_word_suffix|model.unk_token",
       "text|number|boolean|list|object", "tokenizer-syntax", kAnyKey},
      {"model.merges", "removed|null|text|number|boolean|object", "tokenizer-syntax", kAnyKey},
      {"model.merges.?", "null|text|number|boolean|object|empty|first element twice",
       "tokenizer-syntax", kAnyKey},
      {"model.type", "changed|empty", "tokenizer-kind", kAnyKey},
      {"model.type", "number|boolean|list|object", "tokenizer-syntax", kAnyKey},
      {"model.vocab.!", "removed", "tokenizer-kind", kAnyKey},
      {"model.vocab*", "*", "tokenizer-syntax", kAnyKey},
      {"normalizer|post_processor|pre_tokenizer", "text|number|boolean|list|empty",
       "tokenizer-syntax", kAnyKey},
      {"normalizer.normalizers", "removed|null|text|number|boolean|object", "tokenizer-syntax",
       kAnyKey},
      {"padding|truncation", "text|number|boolean|list|object", "tokenizer-truncates"},
      {"pre_tokenizer", "removed|null|key misspelt", "tokenizer-kind", kAnyKey},
      {"pre_tokenizer.pretokenizers", "empty", "tokenizer-kind", kAnyKey},
      {"pre_tokenizer.pretokenizers", "*", "tokenizer-syntax", kAnyKey},
      {"pre_tokenizer.pretokenizers.3", "removed", "tokenizer-kind", kAnyKey},
      {"pre_tokenizer.pretokenizers.?|*.pattern.Regex",
       "null|text|number|boolean|list|object|empty", "tokenizer-syntax", kAnyKey},
      {"*.pattern", "*", "tokenizer-syntax", kAnyKey},
      {"*.pattern.Regex", "removed", "tokenizer-syntax", kAnyKey},
      {"*.invert|pre_tokenizer.pretokenizers.3.add_prefix_space|"
       "pre_tokenizer.pretokenizers.3.use_regex",
       "null|text|number|list|object", "tokenizer-syntax", kAnyKey},
      {"version", "number|boolean|list|object|changed|empty", "tokenizer-syntax"},
  };
  return group;
}

MutationGroup token_id_mutations() {
  MutationGroup group = of_file("config.json", "the ids, beside a tokenizer", &Small::config,
                                [](const std::string& path) {
                                  return !path.ends_with("_token_id") && path != "vocab_size" &&
                                         path != "max_position_embeddings" && path != "model_type";
                                });
  group.name = "token ids";
  group.caught = {
      {"all", "removed", "config-missing", kAnyKey},
      {"all|*", "cut|no UTF-8|written twice", "config-syntax", kAnyKey},
      {"all", "*", "config-syntax", kAnyKey},
      {"vocab_size", "one less", "token-beyond-embedding", {"tokenizer.json", "", "*"}},
      {"vocab_size", "twice", "other-tokenizer", {"tokenizer.json", "", "*"}},
      {"vocab_size",
       "removed|null|text|boolean|list|object|zero|negative|with a fraction|huge|"
       "key misspelt",
       "config-key"},
      {"bos_token_id", "list", "config-key"},
      {"bos_token_id", "one more", "bos-id generation-ids unusual-value"},
      {"bos_token_id", "one less", "config-key generation-ids"},
      {"eos_token_id", "one more|twice", "eos-id generation-ids"},
      {"eos_token_id", "one less|zero", "eos-id generation-ids unusual-value"},
      {"*_token_id", "null", "generation-ids", {"generation_config.json", "", ""}},
      {"*_token_id", "text|boolean|object|negative|with a fraction|huge",
       "config-key generation-ids"},
      {"max_position_embeddings", "removed|null", "default-used rope-factor"},
      {"max_position_embeddings", "one more|twice", "rope-factor", kAnyKey},
      {"max_position_embeddings",
       "one less",
       "model-max-length rope-factor",
       {"tokenizer_config.json", "", "model_max_length"}},
      {"max_position_embeddings", "key misspelt", "default-used misspelt-key rope-factor"},
      {"max_position_embeddings", "*", "config-key rope-factor"},
      {"*_token_id|model_type", "key misspelt", "default-used misspelt-key"},
      {"*_token_id", "removed", "default-used"},
      {"model_type", "removed|null|empty", "default-used"},
      {"model_type", "changed", "other-architecture", kAnyKey},
      {"model_type", "*", "config-key"},
  };
  return group;
}

}  // namespace ds::test
