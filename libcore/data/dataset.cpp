#include "libcore/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"

namespace ds {
namespace {

// Rows tokenised at a time: enough for every thread, little enough to hold.
constexpr std::size_t kBlockRows = 512;
constexpr std::size_t kBlockBytes = 16u << 20;
constexpr std::size_t kMostProblems = 1000;

struct Block {
  std::vector<SourceRow> rows;
  std::vector<TokenizedRow> results;
};

class Loader {
 public:
  Loader(const DatasetOptions& options, const Tokenizer* tokenizer)
      : options_(options), tokenizer_(tokenizer) {}

  Dataset run() {
    data_.files = options_.files;
    for (std::size_t i = 0; i < options_.files.size(); ++i) read_file(i);
    if (data_.examples.empty()) nothing_usable();
    return std::move(data_);
  }

 private:
  const std::filesystem::path& path() const { return options_.files[file_]; }

  void read_file(std::size_t file) {
    file_ = file;
    RowSource source(path(), options_.encoding);
    Block block;
    bool more = true;
    while (more) {
      if (stop_requested()) {
        throw Error(ExitCode::kInterrupted, "stopped while reading " + path().string());
      }
      block.rows.clear();
      const std::size_t begin = source.position();
      while (more && block.rows.size() < kBlockRows && source.position() - begin < kBlockBytes) {
        SourceRow& row = block.rows.emplace_back();
        more = source.next(row);
        if (!more) block.rows.pop_back();
      }
      tokenize(block);
      for (std::size_t i = 0; i < block.rows.size(); ++i) {
        merge(block.rows[i], block.results[i]);
      }
    }
    const auto format = source.format();
    data_.format_by_file[path().string()] = format ? data_format_name(*format) : "unknown";
  }

  void tokenize(Block& block) const {
    const auto count = static_cast<std::int64_t>(block.rows.size());
    block.results.assign(block.rows.size(), TokenizedRow());
    std::exception_ptr failure;
#pragma omp parallel for schedule(dynamic, 4)
    for (std::int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (!block.rows[at].row.content) continue;
      try {
        block.results[at] = tokenize_row(block.rows[at].row, options_, tokenizer_);
      } catch (...) {
#pragma omp critical(deepseek_tokenize)
        failure = std::current_exception();
      }
      block.rows[at].row.content.reset();
    }
    if (failure) std::rethrow_exception(failure);
  }

  void merge(SourceRow& source, TokenizedRow& result) {
    ++data_.rows_read;
    const bool converted = source.row.problem.kind.empty();
    if (!result.example) {
      const RowRemark& problem = converted ? result.problem : source.row.problem;
      if (problem.kind == "too_long" && options_.truncation == Truncation::kError) {
        throw Error(ExitCode::kBadInput,
                    fmt::format("{}: line {}: {}", path().string(), source.line, problem.reason),
                    "raise --cutoff_len, or choose another --truncation");
      }
      const bool first = ++data_.dropped_by_kind[problem.kind] == 1;
      RowProblem row = note(source.line, converted ? 0 : source.column, problem, true);
      if (first) first_of_kind_[problem.kind] = row;
      keep_problem(std::move(row));
      return;
    }
    std::vector<std::string> kinds;
    for (const auto* remarks : {&source.row.repairs, &result.repairs}) {
      for (const RowRemark& remark : *remarks) {
        if (std::find(kinds.begin(), kinds.end(), remark.kind) == kinds.end()) {
          kinds.push_back(remark.kind);
          ++data_.repaired_by_kind[remark.kind];
        }
        const bool bytes = remark.kind == "replaced_bytes";
        keep_problem(note(source.line, bytes ? source.column : 0, remark, false));
      }
    }
    Example& example = *result.example;
    example.line = source.line;
    example.file = static_cast<std::int32_t>(file_);
    data_.truncated += example.truncated ? 1 : 0;
    data_.tokens += static_cast<std::int64_t>(example.ids.size());
    data_.target_tokens += example.target_count();
    data_.examples.push_back(std::move(example));
  }

  RowProblem note(std::int64_t line, std::int64_t column, const RowRemark& remark,
                  bool dropped) const {
    return {path(), line, column, remark.field, remark.reason, remark.kind, dropped};
  }
  void keep_problem(RowProblem problem) {
    if (data_.problems.size() < kMostProblems) data_.problems.push_back(std::move(problem));
  }

  [[noreturn]] void nothing_usable() const {
    std::vector<std::pair<std::string, std::int64_t>> kinds(data_.dropped_by_kind.begin(),
                                                            data_.dropped_by_kind.end());
    std::stable_sort(kinds.begin(), kinds.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    std::string names;
    for (const auto& file : options_.files) names += (names.empty() ? "" : ", ") + file.string();
    std::string reasons;
    for (std::size_t i = 0; i < kinds.size() && i < 3; ++i) {
      const RowProblem& first = first_of_kind_.at(kinds[i].first);
      reasons += fmt::format(
          "{} {} {} (line {}{}: {})", i == 0 ? ":" : ";", kinds[i].second, kinds[i].first,
          first.line, options_.files.size() > 1 ? " of " + first.file.string() : "", first.reason);
    }
    if (kinds.size() > 3) reasons += fmt::format("; and {} more kinds", kinds.size() - 3);
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{}: none of the {} rows can be used{}", names, data_.rows_read, reasons),
        "mend the rows, or see reference formats in deepseek-finetune(1)");
  }

  const DatasetOptions& options_;
  const Tokenizer* tokenizer_;
  Dataset data_;
  std::map<std::string, RowProblem> first_of_kind_;
  std::size_t file_ = 0;
};

}  // namespace

Dataset load_dataset(const DatasetOptions& options, const Tokenizer* tokenizer) {
  if (options.files.empty()) throw Error(ExitCode::kUsage, "no dataset file is named");
  if (options.cutoff_len < 2) {
    throw Error(ExitCode::kUsage,
                fmt::format("cutoff_len is {}, at least 2 is needed", options.cutoff_len));
  }
  if (options.train_on_prompt && options.mask_history) {
    throw Error(ExitCode::kUsage,
                "train_on_prompt makes every token a target and mask_history only the last answer",
                "give one of them");
  }
  return Loader(options, tokenizer).run();
}

}  // namespace ds
