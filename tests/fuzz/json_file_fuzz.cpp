// Bytes as a JSON file, read by both of our readers: the document parser and the cursor. They must
// agree on what is JSON, and a document must survive writing and reading.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/io/json_cursor.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool cursor_accepts(std::string_view text) {
  try {
    ds::JsonCursor cursor(text);
    cursor.skip_value(ds::kJsonDepthLimit);
    cursor.expect_end();
    return true;
  } catch (const ds::JsonSyntaxError& error) {
    require(error.offset <= text.size());
    return false;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  nlohmann::json value;
  const auto problem = ds::try_parse_json(text, true, value);
  if (problem) {
    require(!problem->reason.empty() && problem->offset <= size);
    require(ds::utf8_error(problem->reason) == ds::kUtf8Valid);
  }
  if (ds::utf8_error(text) == ds::kUtf8Valid && !text.starts_with("\xef\xbb\xbf")) {
    // The document parser alone refuses numbers beyond a double.
    const bool number = problem && problem->reason.find("too large") != std::string::npos;
    require(number || cursor_accepts(text) == !problem.has_value());
  }
  if (!problem) {
    const std::string written = ds::dump_json(value, -1);
    require(ds::parse_json_text(written, "again") == value);
    require(ds::dump_json(ds::parse_json_text(written, "again"), -1) == written);
  }
  try {
    const nlohmann::json strict = ds::parse_json_text(text, "fuzz");
    require(!problem && strict == value);
    if (strict.is_object()) {
      const ds::JsonObject object(strict, "fuzz");
      for (const auto& item : strict.items()) {
        try {
          (void)object.integer(item.key(), 0);
        } catch (const ds::Error& error) {
          require(error.code() == ds::ExitCode::kBadInput);
        }
      }
    }
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
    require(ds::utf8_error(error.what()) == ds::kUtf8Valid);
  }
  return 0;
}
