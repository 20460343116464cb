// Bytes as a tokenizer.json, and after a zero byte a tokenizer_config.json: either an Error, or a
// tokenizer that encodes and decodes without loss.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/text/tokenizer.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const ds::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text);
  const auto spans = tokenizer.encode_spans(text);
  require(ids.size() == spans.size());
  std::size_t at = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    require(ids[i] >= 0 && ids[i] < tokenizer.vocab_size());
    require(spans[i].id == ids[i]);
    require(spans[i].begin <= spans[i].end && spans[i].end <= text.size());
    require(spans[i].begin >= at);
    at = spans[i].begin;
  }
  tokenizer.decode(ids, true);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::size_t cut = all.find('\0');
  const std::string_view json = all.substr(0, cut);
  const std::string_view config = cut == std::string_view::npos ? "" : all.substr(cut + 1);
  try {
    const ds::Tokenizer tokenizer = ds::Tokenizer::parse(json, "fuzz", config);
    check(tokenizer, "abcab  bc\n\n123 <x>\u0085\u4f60 e\u0301\xff");
    check(tokenizer, json.substr(0, 200));
  } catch (const ds::Error&) {
  }
  return 0;
}
