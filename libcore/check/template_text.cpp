#include "libcore/check/template_text.h"

#include <fmt/format.h>

#include "libcore/base/format.h"
#include "libcore/check/near_miss.h"
#include "libcore/check/template_probes.h"

namespace ds::check {
namespace {

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

class TextCheck {
 public:
  TextCheck(const TemplateText& subject, Findings& findings)
      : subject_(subject), findings_(findings) {}

  std::optional<ChatTemplate> run() {
    marks();
    const DetectedTemplate detected = examine_chat_template(subject_.text);
    meaning(detected);
    return detected.kind;
  }

  void writing(ChatTemplate kind) { say(judge_chat_template(subject_.text, kind), kind); }

 private:
  void add(const char* rule, const std::string& what, const std::string& found = "",
           const std::string& expected = "") {
    findings_.add(rule, {.file = subject_.file,
                         .key = subject_.key,
                         .message = fmt::format("{}: {}", subject_.file, what),
                         .found = found,
                         .expected = expected});
  }

  void marks() {
    for (const NearMiss& miss : near_misses(subject_.text, 3)) {
      add("template-near-miss",
          fmt::format("the chat template has {} at byte {}, the control token is {}",
                      quote_text(miss.found), miss.offset, quote_text(miss.meant)),
          miss.found, miss.meant);
    }
    for (const std::string& token : wide_tokens(subject_.text)) {
      if (subject_.has_token(token)) continue;
      add("template-token-missing",
          fmt::format("the chat template writes {}, which is no token of the vocabulary",
                      quote_text(token)),
          token);
    }
  }

  // What is known of the text, and what it writes; compared as its kind, when it shows one.
  void meaning(const DetectedTemplate& detected) {
    const std::optional<ChatTemplate> kind = detected.kind;
    bool broken = false;
    for (const std::string& note : detected.notes) broken = broken || has(note, "without its end");
    TemplateVerdict verdict;
    // Without a kind only the grammar is judged.
    if (!broken) verdict = judge_chat_template(subject_.text, kind.value_or(ChatTemplate::kV31));
    using Kind = TemplateVerdict::Kind;
    const bool writes = kind && !broken;
    for (const std::string& note : detected.notes) {
      const bool foreign = has(note, "none of DeepSeek's") || has(note, "not supported");
      const bool alike = has(note, "though much like it");
      // What it writes otherwise says more.
      if (alike && writes && verdict.kind != Kind::kSame && verdict.kind != Kind::kUnknown)
        continue;
      add(has(note, "without its end") ? "template-delimiters"
          : foreign                    ? "template-foreign"
                                       : "template-changed",
          alike && writes && verdict.kind == Kind::kSame
              ? fmt::format("{}: it writes the same text in all {} probes", note, verdict.probes)
              : note);
    }
    if (!broken) say(verdict, kind);
  }

  void say(const TemplateVerdict& verdict, std::optional<ChatTemplate> kind) {
    using Kind = TemplateVerdict::Kind;
    if (verdict.kind == Kind::kSyntax) {
      add("template-syntax",
          fmt::format("line {} of the chat template is no Jinja: {}", verdict.line, verdict.what));
    }
    if (!kind) return;
    const std::string_view name = chat_template_name(*kind);
    if (verdict.kind == Kind::kUnknown) {
      add("template-not-judged",
          fmt::format("cannot judge this chat template: line {} {}", verdict.line, verdict.what),
          verdict.what);
    } else if (verdict.kind == Kind::kFails) {
      add("template-fails",
          fmt::format("the chat template fails on the probe \"{}\" in line {}: {}{}", verdict.probe,
                      verdict.line, quote_text(verdict.what), more(verdict)),
          verdict.what);
    } else if (verdict.kind == Kind::kDiffers) {
      // Releases of V2 and R1 have templates that write different texts.
      const bool one_form =
          (*kind == ChatTemplate::kV3 || *kind == ChatTemplate::kV31) &&
          (subject_.model == nullptr || subject_.model->model_class != ModelClass::kV2);
      add(one_form ? "template-writes-otherwise" : "template-other-release",
          fmt::format("the chat template differs from the {} form in the probe \"{}\" at byte {}: "
                      "it writes {}, the form has {}{}",
                      name, verdict.probe, verdict.offset, quote_text(verdict.found),
                      quote_text(verdict.expected), more(verdict)),
          verdict.found, verdict.expected);
    }
  }

  static std::string more(const TemplateVerdict& verdict) {
    return verdict.others == 0
               ? std::string(" (the other probes agree)")
               : fmt::format(" (and {} more of {} probes are not as they should be)",
                             verdict.others, verdict.probes);
  }

  const TemplateText& subject_;
  Findings& findings_;
};

}  // namespace

std::optional<ChatTemplate> check_template_text(const TemplateText& subject, Findings& findings) {
  return TextCheck(subject, findings).run();
}

void check_template_writing(const TemplateText& subject, ChatTemplate kind, Findings& findings) {
  TextCheck(subject, findings).writing(kind);
}

}  // namespace ds::check
