// Bytes as a data file: rows are read, converted and tokenised; whatever they hold, a row is usable
// or has a named problem, and an example keeps its invariants. The first byte picks the options.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/data/dataset.h"

namespace {

// Without nano-v3's tokenizer only pre-tokenised rows go all the way.
const ds::Tokenizer* tokenizer() {
  static const ds::Tokenizer* const loaded = []() -> const ds::Tokenizer* {
    const char* const source = std::getenv("DEEPSEEK_SOURCE_DIR");
    if (source == nullptr) return nullptr;
    const auto folder = std::filesystem::path(source) / "examples" / "nano-v3";
    if (!std::filesystem::exists(folder / "tokenizer.json")) return nullptr;
    return new ds::Tokenizer(ds::Tokenizer::load(folder));
  }();
  return loaded;
}

void require(bool holds) {
  if (!holds) std::abort();
}

void check_row(const ds::SourceRow& source, const ds::DatasetOptions& options) {
  require(source.line >= 1 && source.column >= 0);
  if (!source.row.content) {
    require(!source.row.problem.kind.empty() && !source.row.problem.reason.empty());
    return;
  }
  for (const ds::RowRemark& repair : source.row.repairs) require(!repair.kind.empty());
  const bool tokens = std::holds_alternative<ds::TokenRow>(*source.row.content);
  if (tokenizer() == nullptr && !tokens) return;
  const ds::TokenizedRow result = ds::tokenize_row(source.row, options, tokenizer());
  if (!result.example) {
    require(!result.problem.kind.empty() && !result.problem.reason.empty());
    return;
  }
  const ds::Example& example = *result.example;
  require(example.ids.size() == example.labels.size());
  require(static_cast<std::int64_t>(example.ids.size()) <= options.cutoff_len);
  require(example.target_count() > 0);
  for (std::size_t i = 0; i < example.ids.size(); ++i) {
    require(example.ids[i] >= 0);
    const bool learned = example.labels[i] != ds::kNoTarget;
    require(tokens || !learned || example.labels[i] == example.ids[i]);
  }
  ds::TokenBatch batch;
  ds::append_segment(batch, example);
  require(batch.target_count() == example.target_count());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const unsigned bits = data[0];
  ds::DatasetOptions options;
  options.encoding = (bits & 1) != 0 ? ds::EncodingPolicy::kReplace : ds::EncodingPolicy::kSkip;
  options.cutoff_len = (bits & 2) != 0 ? 7 : 2048;
  options.truncation = static_cast<ds::Truncation>((bits >> 2) & 3);
  options.mask_history = (bits & 16) != 0;
  options.train_on_prompt = (bits & 48) == 32;
  options.chat_template = static_cast<ds::ChatTemplate>(bits >> 6);
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    ds::RowSource source(text, "fuzz", options.encoding);
    ds::SourceRow row;
    while (source.next(row)) check_row(row, options);
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
  return 0;
}
