#define PCRE2_CODE_UNIT_WIDTH 8
#include "libcore/text/pretokenizer.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/text/pattern.h"
#include "libcore/text/unicode_version.h"
#include "libcore/text/white_space.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;
using Piece = Pretokenizer::Piece;

constexpr std::size_t kPatternBytes = 65536;
constexpr std::uint32_t kMatchSteps = 10'000'000;
constexpr std::uint32_t kHeapKib = 512 * 1024;
constexpr std::size_t kJitStackStart = 32 * 1024;
constexpr std::size_t kJitStackEnd = 4 * 1024 * 1024;
constexpr std::size_t kSteps = 64;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

enum class Behaviour { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
struct BehaviourName {
  std::string_view name;
  Behaviour behaviour;
};
constexpr std::array kBehaviours = {
    BehaviourName{"Isolated", Behaviour::kIsolated},
    BehaviourName{"Removed", Behaviour::kRemoved},
    BehaviourName{"MergedWithPrevious", Behaviour::kMergedWithPrevious},
    BehaviourName{"MergedWithNext", Behaviour::kMergedWithNext},
    BehaviourName{"Contiguous", Behaviour::kContiguous},
};

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDataDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct MatchContextDeleter {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct JitStackDeleter {
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};
struct CompileContextDeleter {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};

enum class Method { kPattern, kLiteral, kSpaceAtLineEnd };
struct Step {
  Method method = Method::kPattern;
  std::unique_ptr<pcre2_code, CodeDeleter> code;
  bool jit = false;
  bool properties = false;  // matched against the stable text
  std::string literal;
  Behaviour behaviour = Behaviour::kIsolated;
  bool invert = false;
  std::string where;
};

// A part of a text that a step found, or what lies between two of them.
struct Part {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool match = false;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

void compile(std::string_view pattern, Step& step) {
  if (pattern.size() > kPatternBytes) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: a pattern of {} bytes, at most {} are read",
                                                 step.where, pattern.size(), kPatternBytes));
  }
  // V2's step. As a search it is quadratic in long runs of spaces, so it is done by hand.
  if (pattern == R"(\s+$)") {
    step.method = Method::kSpaceAtLineEnd;
    return;
  }
  const PatternText rewritten = to_pcre2_pattern(pattern, step.where);
  step.properties = rewritten.properties;
  const std::unique_ptr<pcre2_compile_context, CompileContextDeleter> context(
      pcre2_compile_context_create(nullptr));
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE place = 0;
  step.code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(rewritten.text.data()), rewritten.text.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &place, context.get()));
  if (step.code == nullptr) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: the pattern is broken: {}", step.where, pcre2_message(error)));
  }
  std::uint32_t matches_empty = 0;
  pcre2_pattern_info(step.code.get(), PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    throw Error(ExitCode::kBadInput,
                step.where + ": a pattern that can match the empty text is not supported");
  }
  step.jit = pcre2_jit_compile(step.code.get(), PCRE2_JIT_COMPLETE) == 0;
}

const Json& member(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) {
    throw Error(ExitCode::kBadInput, fmt::format("{}.{} is missing", where, key));
  }
  return *found;
}

std::string text_member(const Json& object, const char* key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_string()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}.{} is {}, a text is needed", where, key, value.type_name()));
  }
  return value.get<std::string>();
}

bool flag_member(const Json& object, const char* key, bool fallback, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) return fallback;
  if (!found->is_boolean()) {
    throw Error(ExitCode::kBadInput, fmt::format("{}.{} is {}, true or false is needed", where, key,
                                                 found->type_name()));
  }
  return found->get<bool>();
}

}  // namespace

struct Pretokenizer::Scratch::State {
  std::unique_ptr<pcre2_match_data, MatchDataDeleter> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, MatchContextDeleter> context{
      pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, JitStackDeleter> stack{
      pcre2_jit_stack_create(kJitStackStart, kJitStackEnd, nullptr)};
  std::string stable;
  std::vector<Piece> before;
  std::vector<Part> parts;

  State() {
    if (data == nullptr || context == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context.get(), kMatchSteps);
    pcre2_set_heap_limit(context.get(), kHeapKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

Pretokenizer::Scratch::Scratch() : state_(std::make_unique<State>()) {}
Pretokenizer::Scratch::~Scratch() = default;
Pretokenizer::Scratch::Scratch(Scratch&&) noexcept = default;
Pretokenizer::Scratch& Pretokenizer::Scratch::operator=(Scratch&&) noexcept = default;

struct Pretokenizer::Impl {
  std::vector<Step> steps;
  bool byte_level = false;
  bool prefix_space = false;

  void read(const Json& settings, const std::string& where, int depth);
  void read_split(const Json& settings, const std::string& where);
  void read_byte_level(const Json& settings, const std::string& where);

  static bool find(const Step& step, std::string_view text, std::size_t from,
                   Scratch::State& scratch, Part& found);
  static bool find_pattern(const Step& step, std::string_view text, std::size_t from,
                           Scratch::State& scratch, Part& found);
  static bool find_space(std::string_view text, std::size_t from, Part& found);
  static void split_piece(const Step& step, std::string_view text, Piece piece,
                          Scratch::State& scratch, std::vector<Piece>& pieces);
};

void Pretokenizer::Impl::read_split(const Json& settings, const std::string& where) {
  Step step;
  step.where = where;
  const std::string behaviour = text_member(settings, "behavior", where);
  const auto* known = std::find_if(kBehaviours.begin(), kBehaviours.end(),
                                   [&](const BehaviourName& b) { return b.name == behaviour; });
  if (known == kBehaviours.end()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}.behavior is {}, Isolated, Removed, MergedWithPrevious, "
                            "MergedWithNext or Contiguous is needed",
                            where, behaviour));
  }
  step.behaviour = known->behaviour;
  step.invert = flag_member(settings, "invert", false, where);
  const Json& pattern = member(settings, "pattern", where);
  if (pattern.is_object() && pattern.size() == 1 && pattern.contains("Regex")) {
    compile(text_member(pattern, "Regex", where + ".pattern"), step);
  } else if (pattern.is_object() && pattern.size() == 1 && pattern.contains("String")) {
    step.method = Method::kLiteral;
    step.literal = text_member(pattern, "String", where + ".pattern");
    if (step.literal.empty()) {
      throw Error(ExitCode::kBadInput, where + ".pattern: an empty String is not supported");
    }
  } else {
    throw Error(ExitCode::kBadInput, where + ".pattern: one of Regex and String is needed");
  }
  steps.push_back(std::move(step));
}

void Pretokenizer::Impl::read_byte_level(const Json& settings, const std::string& where) {
  byte_level = true;
  prefix_space = flag_member(settings, "add_prefix_space", true, where);
  if (!flag_member(settings, "use_regex", true, where)) return;
  if (prefix_space) {
    throw Error(ExitCode::kBadInput,
                where + ": add_prefix_space together with use_regex is not supported");
  }
  Step step;
  step.where = where;
  compile(kGpt2Pattern, step);
  steps.push_back(std::move(step));
}

void Pretokenizer::Impl::read(const Json& settings, const std::string& where, int depth) {
  if (!settings.is_object()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{} is {}, an object is needed", where, settings.type_name()));
  }
  const std::string type = text_member(settings, "type", where);
  if (byte_level) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: a {} step after ByteLevel is not supported", where, type));
  }
  if (steps.size() >= kSteps || depth > 8) {
    throw Error(ExitCode::kBadInput, where + ": too many steps");
  }
  if (type == "Sequence") {
    const Json& list = member(settings, "pretokenizers", where);
    if (!list.is_array()) {
      throw Error(ExitCode::kBadInput, where + ".pretokenizers: a list is needed");
    }
    for (std::size_t i = 0; i < list.size(); ++i) {
      read(list[i], fmt::format("{}.pretokenizers[{}]", where, i), depth + 1);
    }
  } else if (type == "Split") {
    read_split(settings, where);
  } else if (type == "Digits") {
    Step step;
    step.where = where;
    const bool each = flag_member(settings, "individual_digits", false, where);
    step.behaviour = each ? Behaviour::kIsolated : Behaviour::kContiguous;
    compile(R"(\p{N})", step);
    steps.push_back(std::move(step));
  } else if (type == "ByteLevel") {
    read_byte_level(settings, where);
  } else {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: the pre-tokenizer {} is not supported, Split, Digits, ByteLevel "
                            "or a Sequence of them is needed",
                            where, type));
  }
}

Pretokenizer::Pretokenizer(const Json& settings, const std::string& name)
    : impl_(std::make_unique<Impl>()) {
  if (settings.is_null()) {
    throw Error(ExitCode::kBadInput,
                name +
                    ": tokenizer kind not supported: no pre_tokenizer, a byte-level one is "
                    "needed");
  }
  impl_->read(settings, name + ": pre_tokenizer", 0);
  if (!impl_->byte_level) {
    throw Error(ExitCode::kBadInput,
                name + ": tokenizer kind not supported: the pre_tokenizer has no ByteLevel step",
                "Only byte-level BPE can be used.");
  }
}
Pretokenizer::~Pretokenizer() = default;
Pretokenizer::Pretokenizer(Pretokenizer&&) noexcept = default;
Pretokenizer& Pretokenizer::operator=(Pretokenizer&&) noexcept = default;

bool Pretokenizer::adds_prefix_space() const { return impl_->prefix_space; }

bool Pretokenizer::Impl::find_pattern(const Step& step, std::string_view text, std::size_t from,
                                      Scratch::State& scratch, Part& found) {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int count = PCRE2_ERROR_JIT_STACKLIMIT;
  if (step.jit) {
    count = pcre2_jit_match(step.code.get(), subject, text.size(), from, 0, scratch.data.get(),
                            scratch.context.get());
  }
  if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
    count =
        pcre2_match(step.code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                    scratch.data.get(), scratch.context.get());
  }
  if (count == PCRE2_ERROR_NOMATCH) return false;
  if (count < 0) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: the pattern could not be matched against a text of {} bytes: {}",
                            step.where, text.size(), pcre2_message(count)),
                "The pattern needs too many steps for this text; shorten the text.");
  }
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(scratch.data.get());
  if (ends[1] <= ends[0]) {
    throw Error(ExitCode::kBadInput, step.where + ": the pattern matched the empty text");
  }
  found = {ends[0], ends[1], true};
  return true;
}

// \s+$: of every run of white space the part up to the end of the text, else up to the last line
// feed in it that is not its first character.
bool Pretokenizer::Impl::find_space(std::string_view text, std::size_t from, Part& found) {
  for (std::size_t at = from; at < text.size();) {
    if (white_space_at(text, at) == 0) {
      ++at;
      continue;
    }
    std::size_t end = at;
    std::size_t line_feed = at;
    while (const std::size_t length = white_space_at(text, end)) {
      if (text[end] == '\n') line_feed = end;
      end += length;
    }
    const std::size_t stop = end == text.size() ? end : line_feed;
    if (stop > at) {
      found = {at, stop, true};
      return true;
    }
    at = end;
  }
  return false;
}

bool Pretokenizer::Impl::find(const Step& step, std::string_view text, std::size_t from,
                              Scratch::State& scratch, Part& found) {
  switch (step.method) {
    case Method::kPattern:
      return find_pattern(step, text, from, scratch, found);
    case Method::kSpaceAtLineEnd:
      return find_space(text, from, found);
    case Method::kLiteral:
      break;
  }
  const std::size_t at = text.find(step.literal, from);
  if (at == std::string_view::npos) return false;
  found = {at, at + step.literal.size(), true};
  return true;
}

// Behaviours as NormalizedString::split of the `tokenizers` library has them.
void Pretokenizer::Impl::split_piece(const Step& step, std::string_view text, Piece piece,
                                     Scratch::State& scratch, std::vector<Piece>& pieces) {
  const std::string_view part_text = text.substr(piece.begin, piece.end - piece.begin);
  const auto emit = [&](std::size_t begin, std::size_t end) {
    pieces.push_back({piece.begin + static_cast<std::uint32_t>(begin),
                      piece.begin + static_cast<std::uint32_t>(end)});
  };
  std::size_t at = 0;
  Part found;
  if (step.behaviour == Behaviour::kIsolated) {
    while (at < part_text.size() && find(step, part_text, at, scratch, found)) {
      if (found.begin > at) emit(at, found.begin);
      emit(found.begin, found.end);
      at = found.end;
    }
    if (at < part_text.size()) emit(at, part_text.size());
    return;
  }
  std::vector<Part>& parts = scratch.parts;
  parts.clear();
  while (at < part_text.size() && find(step, part_text, at, scratch, found)) {
    if (found.begin > at) parts.push_back({at, found.begin, step.invert});
    parts.push_back({found.begin, found.end, !step.invert});
    at = found.end;
  }
  if (at < part_text.size()) parts.push_back({at, part_text.size(), step.invert});
  const std::size_t first = pieces.size();
  bool previous = false;
  if (step.behaviour == Behaviour::kMergedWithNext) {
    for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
      if (part->match && !previous && pieces.size() > first) {
        pieces.back().begin = piece.begin + static_cast<std::uint32_t>(part->begin);
      } else {
        emit(part->begin, part->end);
      }
      previous = part->match;
    }
    std::reverse(pieces.begin() + static_cast<std::ptrdiff_t>(first), pieces.end());
    return;
  }
  for (const Part& part : parts) {
    const bool removed = step.behaviour == Behaviour::kRemoved && part.match;
    const bool joined = step.behaviour == Behaviour::kMergedWithPrevious
                            ? part.match && !previous
                            : step.behaviour == Behaviour::kContiguous && part.match == previous;
    if (joined && pieces.size() > first) {
      pieces.back().end = piece.begin + static_cast<std::uint32_t>(part.end);
    } else if (!removed) {
      emit(part.begin, part.end);
    }
    previous = part.match;
  }
}

void Pretokenizer::split(std::string_view text, Scratch& scratch,
                         std::vector<Piece>& pieces) const {
  pieces.clear();
  if (text.empty()) return;
  Scratch::State& state = *scratch.state_;
  const std::string_view stable =
      to_stable_text(text, state.stable) ? std::string_view(state.stable) : text;
  pieces.push_back({0, static_cast<std::uint32_t>(text.size())});
  for (const Step& step : impl_->steps) {
    state.before.swap(pieces);
    pieces.clear();
    for (const Piece piece : state.before) {
      Impl::split_piece(step, step.properties ? stable : text, piece, state, pieces);
    }
  }
}

}  // namespace ds
