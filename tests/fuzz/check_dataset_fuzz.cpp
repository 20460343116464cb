// Bytes as up to five files of rows, as input_files.h says, through the rules on datasets, --fix
// and the questions of the migration. The first byte picks the options.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/check/compatibility.h"
#include "libcore/check/dataset_check.h"
#include "libcore/check/fix.h"
#include "tests/fuzz/support/check_program.h"
#include "tests/fuzz/support/input_files.h"

namespace {

using ds::fuzz::require;
namespace check = ds::check;

constexpr const char* kNames[] = {"rows.jsonl", "rows.json", "rows.csv", "rows.txt", "more.jsonl"};

const ds::Tokenizer& tokenizer() {
  static const ds::Tokenizer loaded = ds::Tokenizer::load(ds::fuzz::base_folder());
  return loaded;
}

std::vector<check::Finding> findings_of(const std::filesystem::path& path,
                                        const check::DatasetCheckOptions& options,
                                        check::SeenRows& seen) {
  check::Findings findings;
  const check::DatasetSize size = check::check_dataset(path, options, seen, findings);
  require(size.usable >= 0 && size.usable <= size.rows, "more usable rows than rows");
  require(options.tokenizer == nullptr || size.longest <= options.cutoff_len, "a row over cutoff");
  for (const check::Finding& finding : findings.sorted()) {
    require(finding.message.starts_with(finding.file), "a finding that does not name its file");
    for (const std::string* text :
         {&finding.message, &finding.found, &finding.expected, &finding.key, &finding.fix}) {
      require(ds::utf8_error(*text) == ds::kUtf8Valid, "text that is not UTF-8");
    }
  }
  return findings.sorted();
}

void fix(const std::filesystem::path& path, const check::DatasetCheckOptions& options,
         const std::vector<check::Finding>& findings) {
  const auto kind = check::TargetKind::kDataset;
  const check::FixPlan plan = check::plan_fixes(kind, path, findings);
  if (plan.files.empty()) return;
  check::fix_in_place(plan);
  check::SeenRows seen;
  const check::FixPlan again = check::plan_fixes(kind, path, findings_of(path, options, seen));
  require(again.files.empty(), "a second --fix has something to write");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ds::fuzz::MemoryFolder folder;
  if (size == 0) return 0;
  const unsigned bits = data[0];
  const auto files = ds::fuzz::split_input(
      std::string_view(reinterpret_cast<const char*>(data) + 1, size - 1), kNames);
  folder.hold(files);
  check::DatasetCheckOptions options;
  if ((bits & 1) == 0) options.tokenizer = &tokenizer();
  if ((bits & 2) != 0) options.vocab_size = 100;
  if ((bits & 4) != 0) options.cutoff_len = 12;
  options.chat_template = static_cast<ds::ChatTemplate>(bits >> 3 & 3);
  options.several_files = files.size() > 1;
  check::SeenRows seen;
  for (const ds::fuzz::InputFile& file : files) {
    const std::filesystem::path path = folder.path() / file.name;
    const auto findings = findings_of(path, options, seen);
    if ((bits & 32) != 0) {
      const auto from = (bits & 64) != 0 ? check::Generation::kR1 : check::Generation::kV3;
      for (const auto& row : check::check_dataset_migration(path, from)) {
        require(!row.requirement.empty() && !row.detail.empty(), "a row without words");
      }
    }
    if ((bits & 128) != 0) fix(path, options, findings);
  }
  return 0;
}
