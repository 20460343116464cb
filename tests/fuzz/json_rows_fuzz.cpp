// Bytes as a file of rows; the first byte picks the encoding policy. Rows come in order, each is
// good or has a reason, and reading ends.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/io/jsonl.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

template <class Json>
std::size_t read_all(std::string_view text, ds::EncodingPolicy policy) {
  ds::JsonRowReader reader(text, "fuzz", policy);
  Json value;
  ds::JsonRow row;
  std::int64_t line = 1;
  std::size_t rows = 0;
  while (reader.next(value, row)) {
    require(row.line >= line && row.column >= 0);
    line = row.line;
    require(++rows <= text.size());
    require(ds::utf8_error(row.reason) == ds::kUtf8Valid);
    if (!row.good()) {
      require(value.is_null());
      continue;
    }
    require(!row.repaired || policy == ds::EncodingPolicy::kReplace);
    // Strict about UTF-8: throws when a row let invalid bytes through.
    require(!value.dump().empty());
  }
  require(reader.position() <= text.size());
  return rows;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto policy = static_cast<ds::EncodingPolicy>(data[0] % 3);
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    const std::size_t rows = read_all<nlohmann::json>(text, policy);
    require(read_all<nlohmann::ordered_json>(text, policy) == rows);
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
  return 0;
}
