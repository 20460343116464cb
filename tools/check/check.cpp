#include "tools/check/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/check/checks.h"
#include "libcore/check/dataset_check.h"
#include "libcore/check/deep.h"
#include "libcore/check/detect.h"
#include "libcore/check/gguf_target.h"
#include "libcore/check/inference_target.h"
#include "libcore/cli/environment.h"
#include "libcore/config/inference_names.h"
#include "tools/check/compatibility.h"
#include "tools/check/fixes.h"
#include "tools/check/result.h"
#include "tools/check/rules.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

// --model: a GGUF model, or the folder that find_model() gives, whatever its layout.
Detected model_of(const std::string& name) {
  std::error_code ignored;
  if (fs::is_regular_file(name, ignored)) {
    Detected file = detect(name);
    if (file.kind == TargetKind::kGguf) return file;
  }
  const fs::path folder = find_model(name, cli::model_search_paths());
  if (!fs::exists(folder / "config.json", ignored) || is_inference_folder(folder)) {
    Detected found = detect(folder);
    if (found.kind == TargetKind::kGguf || found.kind == TargetKind::kInference) return found;
  }
  return {TargetKind::kCheckpoint, folder};
}

std::vector<Detected> targets_of(const CheckSettings& settings) {
  std::vector<Detected> targets;
  for (const std::string& path : settings.paths) targets.push_back(detect(path));
  if (!settings.model.empty()) targets.push_back(model_of(settings.model));
  if (!settings.adapter.empty()) {
    Detected adapter = detect(settings.adapter);
    if (adapter.kind != TargetKind::kAdapter && adapter.kind != TargetKind::kGgufAdapter) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("--adapter {}: this is a {}", settings.adapter, target_name(adapter.kind)),
          "an adapter folder with adapter_config.json, or a GGUF adapter, is needed");
    }
    targets.push_back(std::move(adapter));
  }
  if (!settings.dataset.empty()) {
    std::error_code ignored;
    if (!fs::is_regular_file(settings.dataset, ignored)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("--dataset {}: there is no such file", settings.dataset));
    }
    targets.push_back({TargetKind::kDataset, settings.dataset});
  }
  // Models first: what else is named is checked against them.
  std::stable_partition(targets.begin(), targets.end(), [](const Detected& target) {
    return target.kind == TargetKind::kCheckpoint || target.kind == TargetKind::kInference ||
           target.kind == TargetKind::kGguf;
  });
  if (targets.empty() && !settings.compatibility) {
    throw Error(ExitCode::kUsage, "nothing to check was named",
                "give paths, or --model, --adapter, --dataset");
  }
  return targets;
}

std::string counted(std::uint64_t count, const char* what) {
  return fmt::format("{} {}{}", format_count(static_cast<std::int64_t>(count)), what,
                     count == 1 ? "" : "s");
}

// Runs the checks of one target and notes what was looked at.
class Checker {
 public:
  Checker(const CheckSettings& settings, const DeepOptions* deep, Findings& findings,
          CheckResult& result, bool several_datasets)
      : settings_(settings),
        deep_(deep),
        findings_(findings),
        result_(result),
        several_datasets_(several_datasets) {}

  // With `compatibility`, its rows as well.
  void check(const Detected& target, Compatibility* compatibility) {
    findings_.begin_section();
    CheckedTarget& checked = result_.targets.emplace_back();
    checked.path = target.path.string();
    checked.kind = target.kind;
    switch (target.kind) {
      case TargetKind::kCheckpoint:
        checkpoint(target.path, checked);
        break;
      case TargetKind::kShard:
        shard(target.path, checked);
        break;
      case TargetKind::kAdapter: {
        checked.groups = {RuleGroup::kAdapter, RuleGroup::kContainer};
        const AdapterSize size =
            check_adapter(target.path, base_ ? &*base_ : nullptr, deep_ != nullptr, findings_);
        count(size.tensors > 0 ? 1 : 0, size.tensors, size.bytes, checked);
        break;
      }
      case TargetKind::kTokenizer:
        checked.groups = {RuleGroup::kTokenizer, RuleGroup::kTemplate};
        check_tokenizer(target.path, nullptr, nullptr, findings_);
        break;
      case TargetKind::kDataset:
        dataset(target.path, checked);
        break;
      case TargetKind::kGguf:
      case TargetKind::kGgufAdapter:
        gguf(target, checked);
        break;
      case TargetKind::kInference:
        inference(target.path, checked);
        break;
      case TargetKind::kMachine:
        break;  // of no path
    }
    if (compatibility != nullptr) {
      compatibility->add(target, base_ ? &*base_ : nullptr, checked);
    }
  }

 private:
  void count(std::uint64_t files, std::uint64_t tensors, std::uint64_t bytes,
             CheckedTarget& checked) {
    result_.files += files;
    result_.tensors += tensors;
    result_.bytes += bytes;
    checked.what = fmt::format("{} in {}, {}", counted(tensors, "tensor"), counted(files, "file"),
                               format_bytes(bytes));
  }

  void checkpoint(const fs::path& folder, CheckedTarget& checked) {
    checked.groups = {RuleGroup::kContainer, RuleGroup::kArchitecture, RuleGroup::kQuantisation,
                      RuleGroup::kTokenizer, RuleGroup::kTemplate};
    const CheckpointTarget target(folder, findings_);
    check_checkpoint(target, findings_, deep_);
    if (target.config()) base_ = *target.config();
    base_folder_ = folder;
    check_tokenizer(folder, target.json() ? &*target.json() : nullptr,
                    target.config() ? &*target.config() : nullptr, findings_);
    const Checkpoint& files = target.inspection().checkpoint;
    count(files.files().size(), files.tensor_count(), files.total_bytes(), checked);
  }

  void gguf(const Detected& named, CheckedTarget& checked) {
    const GgufTarget target(named.path, findings_);
    if (named.kind == TargetKind::kGguf) {
      checked.groups = {RuleGroup::kContainer, RuleGroup::kArchitecture, RuleGroup::kQuantisation,
                        RuleGroup::kTokenizer, RuleGroup::kTemplate};
      const auto config = check_gguf(target, deep_, findings_);
      if (config) base_ = *config;
    } else {
      checked.groups = {RuleGroup::kContainer, RuleGroup::kAdapter};
      if (target.first() != nullptr) {
        check_gguf_adapter(target, base_ ? &*base_ : nullptr, deep_, findings_);
      }
    }
    count(target.files().size(), target.entries().size(), target.bytes(), checked);
  }

  void inference(const fs::path& folder, CheckedTarget& checked) {
    checked.groups = {RuleGroup::kContainer, RuleGroup::kArchitecture, RuleGroup::kQuantisation,
                      RuleGroup::kTokenizer, RuleGroup::kTemplate};
    const InferenceTarget target(folder, findings_);
    check_inference(target, deep_, findings_);
    if (target.config()) base_ = *target.config();
    base_folder_ = folder;
    check_tokenizer(folder, target.json() ? &*target.json() : nullptr,
                    target.config() ? &*target.config() : nullptr, findings_);
    std::uint64_t files = 0, tensors = 0, bytes = 0;
    for (const auto& shard : target.shards()) {
      if (shard == nullptr) continue;
      ++files;
      tensors += shard->tensors().size();
      for (const TensorInfo& tensor : shard->tensors()) bytes += tensor.bytes();
    }
    count(files, tensors, bytes, checked);
  }

  void shard(const fs::path& path, CheckedTarget& checked) {
    checked.groups = {RuleGroup::kContainer};
    const auto file = check_shard(path, findings_);
    std::uint64_t bytes = 0;
    if (file) {
      if (deep_ != nullptr) check_data(*file, *deep_, findings_);
      for (const TensorInfo& tensor : file->tensors()) bytes += tensor.bytes();
    }
    count(1, file ? file->tensors().size() : 0, bytes, checked);
  }

  // The tokenizer of the last checkpoint; null when it has none that can be used.
  const Tokenizer* tokenizer() {
    std::error_code ignored;
    if (tokenizer_ || base_folder_.empty() ||
        !fs::exists(base_folder_ / "tokenizer.json", ignored)) {
      return tokenizer_ ? &*tokenizer_ : nullptr;
    }
    try {
      tokenizer_ = Tokenizer::load(base_folder_);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;  // said where the tokenizer was checked
    }
    return tokenizer_ ? &*tokenizer_ : nullptr;
  }

  void dataset(const fs::path& path, CheckedTarget& checked) {
    checked.groups = {RuleGroup::kDataset};
    DatasetCheckOptions options;
    options.tokenizer = tokenizer();
    options.cutoff_len = settings_.cutoff_len;
    options.several_files = several_datasets_;
    if (base_) options.vocab_size = base_->vocab_size;
    if (options.tokenizer != nullptr) {
      const auto kind = detect_chat_template(options.tokenizer->chat_template());
      options.chat_template = kind.value_or(
          base_ && base_->model_class == ModelClass::kV2 ? ChatTemplate::kV2 : ChatTemplate::kV31);
    }
    const DatasetSize size = check_dataset(path, options, seen_, findings_);
    checked.lengths = size.lengths;
    std::error_code ignored;
    const std::uintmax_t bytes = fs::file_size(path, ignored);
    ++result_.files;
    result_.bytes += ignored ? 0 : bytes;
    checked.what = fmt::format(
        "{} of format {}, {} usable", counted(static_cast<std::uint64_t>(size.rows), "row"),
        size.format.empty() ? "unknown" : size.format, format_count(size.usable));
    if (size.tokens > 0) {
      checked.what += fmt::format(", {} tokens, at most {} a row", format_count(size.tokens),
                                  format_count(size.longest));
    }
  }

  const CheckSettings& settings_;
  const DeepOptions* deep_;
  Findings& findings_;
  CheckResult& result_;
  bool several_datasets_;
  SeenRows seen_;
  fs::path base_folder_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ModelConfig> base_;  // of the last checkpoint
};

// The fingerprints of an earlier check's JSON.
std::set<std::string> read_baseline(const std::string& path) {
  std::set<std::string> known;
  if (path.empty()) return known;
  const nlohmann::json document = parse_json_file(path);
  const auto findings = document.find("findings");
  if (!document.is_object() || findings == document.end() || !findings->is_array()) {
    throw Error(ExitCode::kBadInput, path + ": there is no list \"findings\"",
                "a baseline is what --format json printed");
  }
  for (const nlohmann::json& finding : *findings) {
    if (finding.is_object() && finding.contains("fingerprint") &&
        finding.at("fingerprint").is_string()) {
      known.insert(finding.at("fingerprint").get<std::string>());
    }
  }
  return known;
}

void sum_up(const Findings& findings, const std::set<std::string>& baseline,
            std::int64_t max_findings, CheckResult& result) {
  for (Finding& finding : findings.sorted()) {
    if (baseline.count(fingerprint(finding, result.root(finding))) > 0) {
      ++result.known;
      continue;
    }
    switch (finding.rule->severity) {
      case Severity::kError:
        ++result.errors;
        break;
      case Severity::kWarning:
        ++result.warnings;
        break;
      default:
        ++result.notes;
    }
    if (max_findings > 0 && static_cast<std::int64_t>(result.findings.size()) >= max_findings) {
      ++result.hidden;
      continue;
    }
    result.findings.push_back(std::move(finding));
  }
  for (const auto& [id, count] : findings.dropped()) {
    result.hidden += count;
    const Severity severity = find_rule(id)->severity;
    (severity == Severity::kError     ? result.errors
     : severity == Severity::kWarning ? result.warnings
                                      : result.notes) += count;
  }
}

class Session {
 public:
  Session(const CheckSettings& settings, cli::Run& run)
      : settings_(settings),
        run_(run),
        filter_(settings.select, settings.ignore),
        baseline_(read_baseline(settings.baseline)),
        deep_{.threads = run.threads(), .progress = [&run](std::uint64_t done, std::uint64_t all) {
                run.progress(fmt::format("read {} of {}", format_bytes(done), format_bytes(all)),
                             static_cast<double>(done) / static_cast<double>(all));
              }} {}

  // Looks at all targets; `found` gets every finding that was asked for and is not in the baseline.
  CheckResult examine(const std::vector<Detected>& targets, std::vector<Finding>* found) {
    CheckResult result;
    result.version = run_.version();
    result.fail_on_warnings = settings_.fail_on == "warning";
    Findings findings([&](const Rule& rule) { return filter_.wants(rule); });
    const auto datasets = std::count_if(targets.begin(), targets.end(), [](const Detected& target) {
      return target.kind == TargetKind::kDataset;
    });
    Checker checker(settings_, settings_.deep ? &deep_ : nullptr, findings, result, datasets > 1);
    std::optional<Compatibility> compatibility = make_compatibility(settings_, findings);
    for (const Detected& target : targets) {
      checker.check(target, compatibility ? &*compatibility : nullptr);
    }
    if (compatibility) compatibility->finish(result);
    run_.progress_clear();
    if (found != nullptr) {
      for (Finding& finding : findings.sorted()) {
        if (baseline_.count(fingerprint(finding, result.root(finding))) == 0) {
          found->push_back(std::move(finding));
        }
      }
    }
    sum_up(findings, baseline_, settings_.max_findings, result);
    return result;
  }

 private:
  const CheckSettings& settings_;
  cli::Run& run_;
  RuleFilter filter_;
  std::set<std::string> baseline_;
  DeepOptions deep_;
};

}  // namespace

void run_check(const CheckSettings& settings, cli::Run& run) {
  const auto start = std::chrono::steady_clock::now();
  const bool fixes = settings.fix || !settings.fix_output.empty();
  Session session(settings, run);
  std::vector<Detected> targets = targets_of(settings);
  std::vector<Finding> found;
  CheckResult result = session.examine(targets, fixes ? &found : nullptr);
  if (fixes) {
    // What a repair brings to light is repaired too: a new index may show what a shard lacks.
    constexpr int kRounds = 8;
    FixResult fixed;
    for (int round = 0; round < kRounds; ++round) {
      if (!apply_fixes(settings, targets, found, fixed)) break;
      found.clear();
      result = session.examine(targets, &found);
    }
    result.fix = std::move(fixed);
    for (const Repair& repair : result.fix->repairs) {
      run.event("deepseek/repair/1", repair_json(repair));
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();

  for (const Finding& finding : result.findings) {
    run.event("deepseek/finding/1", finding_json(finding, result.root(finding)));
  }
  if (run.format() == "junit") {
    run.write_stdout(as_junit(result));
  } else if (run.format() == "sarif") {
    run.write_stdout(as_sarif(result));
  } else if (run.json_output()) {
    run.product("", as_json(result));
  } else {
    run.product(as_text(result, run.color_output()), {});
  }
  const bool failed = result.errors > 0 || (result.fail_on_warnings && result.warnings > 0);
  run.conclude(failed ? ExitCode::kFindings : ExitCode::kDone);
}

}  // namespace ds::check
