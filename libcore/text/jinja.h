// The part of Jinja that chat templates are written in, set up as transformers does (trim_blocks,
// lstrip_blocks, loop controls, generation blocks, raise_exception, strftime_now, its tojson), in
// the sandbox that forbids changing lists and dictionaries. A template is untrusted: steps, memory,
// output and nesting are bounded. Follows jinja2 3.1 and Python; what is not understood is said and
// never guessed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "libcore/base/error.h"

namespace ds {

enum class JinjaProblem {
  kSyntax,       // jinja2 refuses the text
  kUnsupported,  // jinja2 may do something with it, this interpreter cannot
  kRaised,       // jinja2 would raise while rendering: raise_exception, a wrong type, ...
  kLimit,        // more steps, memory, output or nesting than allowed
};

// what() says what is wrong, without a line.
class JinjaError : public Error {
 public:
  JinjaError(JinjaProblem problem, int line, const std::string& message)
      : Error(ExitCode::kBadInput, message), problem_(problem), line_(line) {}
  JinjaProblem problem() const { return problem_; }
  int line() const { return line_; }  // of the template, from 1

 private:
  JinjaProblem problem_;
  int line_;
};

struct JinjaLimits {
  std::int64_t steps = 500'000;
  std::size_t bytes = std::size_t{16} << 20;  // of all values made while rendering
  std::size_t output = std::size_t{1} << 20;
};

namespace jinja {
struct Block;
}

class JinjaTemplate {
 public:
  // At most 1 MiB. Throws JinjaError(kSyntax, kUnsupported or kLimit). Of constructs that are only
  // unsupported in use, such as a filter, the error comes from render().
  explicit JinjaTemplate(std::string_view text);
  ~JinjaTemplate();
  JinjaTemplate(JinjaTemplate&&) noexcept;
  JinjaTemplate& operator=(JinjaTemplate&&) noexcept;

  // `context` is an object: the names that the template sees. Throws JinjaError (not kSyntax).
  std::string render(const nlohmann::ordered_json& context, const JinjaLimits& limits = {}) const;

 private:
  std::unique_ptr<const jinja::Block> body_;
};

}  // namespace ds
