// Bytes as a chat template: it renders within its limits, or gives a JinjaError with a line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "libcore/base/utf8.h"
#include "libcore/text/jinja.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

const nlohmann::ordered_json& context() {
  static const auto kContext = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q \u4f60"},
                 {"role": "assistant", "content": null, "tool_calls": [
                   {"function": {"name": "f", "arguments": {"a": [1, 2.5, true, null]}}}]},
                 {"role": "tool", "content": "<think>r</think>t"}],
    "tools": [{"function": {"name": "f", "description": "d", "parameters": {}}}],
    "bos_token": "<B>", "n": 3, "x": -1.5, "s": "a-b c", "l": [3, 1, 2],
    "d": {"b": 1, "a": [1]}, "add_generation_prompt": true})");
  return kContext;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const ds::JinjaLimits limits{.steps = 20'000, .bytes = 1u << 20, .output = 1u << 16};
  try {
    const ds::JinjaTemplate jinja({reinterpret_cast<const char*>(data), size});
    const std::string text = jinja.render(context(), limits);
    require(text.size() <= limits.output);
    require(ds::utf8_error(text) == ds::kUtf8Valid);
    require(jinja.render(context(), limits) == text);
  } catch (const ds::JinjaError& error) {
    require(error.line() >= 1);
    require(error.what()[0] != '\0');
  }
  return 0;
}
