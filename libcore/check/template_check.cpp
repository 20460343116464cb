#include "libcore/check/template_check.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libcore/base/utf8.h"
#include "libcore/check/template_text.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Of a list of templates; each may take a while.
constexpr std::size_t kJudgedTemplates = 16;

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

class TemplateCheck {
 public:
  TemplateCheck(const fs::path& folder, const Tokenizer& tokenizer, const json& settings,
                const ModelConfig* model, Findings& findings)
      : folder_(folder),
        tokenizer_(tokenizer),
        settings_(settings.is_object() ? settings.value("chat_template", json()) : json()),
        model_(model),
        findings_(findings) {
    std::error_code ignored;
    own_file_ = fs::exists(folder / "chat_template.jinja", ignored);
  }

  void run() {
    const std::string& text = tokenizer_.chat_template();
    const Place place = own_file_ ? Place{"chat_template.jinja", ""} : setting();
    if (text.empty()) {
      add("template-missing", setting(), "there is no chat template");
      return;
    }
    if (own_file_ && settings_.is_string() && !settings_.get_ref<const std::string&>().empty() &&
        settings_ != text) {
      add("two-templates", place, "tokenizer_config.json has another chat_template");
    }
    const auto found = check_template_text(at(place, text), findings_);
    if (found) kind(place, text, *found);
    others(text, found);
  }

 private:
  struct Place {
    std::string file;
    std::string key;
  };
  static Place setting() { return {"tokenizer_config.json", "chat_template"}; }

  void add(const char* rule, const Place& place, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    const std::string file = (folder_ / place.file).string();
    findings_.add(rule, {.file = file,
                         .key = place.key,
                         .message = fmt::format("{}: {}", file, what),
                         .found = found,
                         .expected = expected});
  }

  TemplateText at(const Place& place, const std::string& text) const {
    return {.file = (folder_ / place.file).string(),
            .key = place.key,
            .text = text,
            .has_token = [this](const std::string& token) { return tokenizer_.id_of(token) >= 0; },
            .model = model_};
  }

  void kind(const Place& place, const std::string& text, ChatTemplate kind) {
    const bool writes_think =
        has(text, "</think>'") || has(text, "</think>\"") || kind == ChatTemplate::kV31;
    if (writes_think && (tokenizer_.id_of("<think>") < 0 || tokenizer_.id_of("</think>") < 0)) {
      add("think-tokens", {"tokenizer.json", "<think>"},
          fmt::format("the chat template is that of {}, but <think> or </think> is no token",
                      chat_template_name(kind)));
    }
    if (kind == ChatTemplate::kV3 && tokenizer_.id_of("</think>") >= 0) {
      add("template-without-think", place,
          "the tokenizer has </think>, but the chat template is that of V3 and never writes it");
    }
    if (model_ == nullptr) return;
    if ((kind == ChatTemplate::kV2) != (model_->model_class == ModelClass::kV2)) {
      add("template-of-other-model", place,
          fmt::format("the chat template is that of {}, the model is {}", chat_template_name(kind),
                      model_->architecture),
          std::string(chat_template_name(kind)));
    }
  }

  // Templates beside the one in use, of its kind where they show none.
  void others(const std::string& used, std::optional<ChatTemplate> kind) {
    std::size_t judged = 0;
    const auto judge = [&](const Place& place, const std::string& text) {
      if (text.empty() || text == used || utf8_error(text) != kUtf8Valid) return;
      if (++judged > kJudgedTemplates) return;
      const DetectedTemplate detected = examine_chat_template(text);
      const auto as = detected.kind ? detected.kind : kind;
      if (as) check_template_writing(at(place, text), *as, findings_);
    };
    if (settings_.is_string()) judge(setting(), settings_.get<std::string>());
    if (!settings_.is_array()) return;
    for (const json& entry : settings_) {
      if (!entry.is_object() || !entry.value("name", json()).is_string() ||
          !entry.value("template", json()).is_string()) {
        continue;
      }
      judge({"tokenizer_config.json",
             fmt::format("chat_template[{}]", entry.at("name").get_ref<const std::string&>())},
            entry.at("template").get<std::string>());
    }
    if (judged > kJudgedTemplates) {
      add("template-not-judged", setting(),
          fmt::format("only the first {} of {} further chat templates are judged", kJudgedTemplates,
                      judged),
          std::to_string(judged));
    }
  }

  const fs::path& folder_;
  const Tokenizer& tokenizer_;
  json settings_;  // chat_template of tokenizer_config.json
  const ModelConfig* model_;
  Findings& findings_;
  bool own_file_ = false;
};

}  // namespace

void check_chat_templates(const fs::path& folder, const Tokenizer& tokenizer, const json& settings,
                          const ModelConfig* model, Findings& findings) {
  TemplateCheck(folder, tokenizer, settings, model, findings).run();
}

}  // namespace ds::check
