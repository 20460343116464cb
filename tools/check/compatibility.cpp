#include "tools/check/compatibility.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/system.h"
#include "libcore/tensor/backend.h"

namespace ds::check {
namespace {

using nlohmann::json;

constexpr const char* kMachine = "this machine";

template <class F>
std::vector<std::string> names_of(int count, F&& name) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(name(i));
  return names;
}

[[noreturn]] void unknown(const char* flag, const std::string& word,
                          const std::vector<std::string>& known) {
  std::string list;
  for (const std::string& name : known) list += (list.empty() ? "" : ", ") + name;
  const std::string nearest = nearest_name(word, known);
  throw Error(ExitCode::kUsage, fmt::format("{} {}: known are {}", flag, quote_text(word), list),
              nearest.empty() ? "" : fmt::format("did you mean {}?", nearest));
}

Generation generation_of(const char* flag, const std::string& word) {
  const auto found = parse_generation(word);
  if (found) return *found;
  unknown(flag, word,
          names_of(3, [](int i) { return generation_name(static_cast<Generation>(i)); }));
}

CompatibilityRow hardware_row(const Hardware& hardware) {
  const Gpu& gpu = *hardware.gpu;
  const auto tera = [](double rate) {
    return rate > 0 ? fmt::format("{:.0f} TFLOP/s", rate / 1e12) : std::string("none");
  };
  return {
      .section = "hardware",
      .subject = hardware.text(),
      .requirement = gpu.name.data(),
      .verdict = Verdict::kOk,
      .detail = fmt::format("{}: {}, {} each, {} in all; {:.2f} TB/s; BF16 {}, FP8 {}", gpu.label,
                            capability_name(gpu), format_bytes(gpu.memory),
                            format_bytes(gpu.memory * static_cast<std::uint64_t>(hardware.count)),
                            gpu.bandwidth / 1e12, tera(gpu.bf16), tera(gpu.fp8)),
      .action = {},
      .source = std::string(gpu.source),
      .rule = {},
      .file = {}};
}

json number_or_null(double value) { return value > 0 ? json(value) : json(); }

json hardware_json(const Hardware& hardware) {
  const Gpu& gpu = *hardware.gpu;
  return {{"name", gpu.name},
          {"label", gpu.label},
          {"count", hardware.count},
          {"memory_bytes", gpu.memory},
          {"capability", gpu.capability > 0 ? json(gpu.capability) : json()},
          {"bandwidth_bytes_per_second", gpu.bandwidth},
          {"bf16_flops", number_or_null(gpu.bf16)},
          {"fp8_flops", number_or_null(gpu.fp8)},
          {"source", gpu.source},
          {"usable_share", kUsableMemory}};
}

json fit_json(const std::string& path, const HardwareFit& fit) {
  json degrees = json::array();
  for (const TensorParallel& degree : fit.degrees) {
    degrees.push_back({{"degree", degree.degree},
                       {"fits", degree.fits},
                       {"experts_fit", degree.experts_whole},
                       {"tensor", degree.tensor.empty() ? json() : json(degree.tensor)},
                       {"reason", degree.reason.empty() ? json() : json(degree.reason)}});
  }
  return {{"path", path},
          {"context", fit.workload.context},
          {"batch", fit.workload.batch},
          {"weights_bytes", fit.weights},
          {"weights_bf16_bytes", fit.weights_bf16},
          {"cache_bytes", fit.cache},
          {"needed_bytes_per_gpu", fit.needed},
          {"usable_bytes_per_gpu", fit.usable},
          {"fits", fit.needed <= fit.usable},
          {"smallest_count", fit.smallest_count > 0 ? json(fit.smallest_count) : json()},
          {"tensor_parallel", degrees}};
}

json machine_json(const MachineInfo& machine) {
  return {{"processor", machine.processor},
          {"cpus", machine.cpus},
          {"avx2", machine.avx2},
          {"avx512", machine.avx512},
          {"amx", machine.amx},
          {"memory_bytes", machine.memory.total},
          {"available_bytes", machine.memory.available},
          {"driver", machine.driver.empty() ? json() : json(machine.driver)},
          {"gpus", machine.gpus},
          {"cublas", machine.cublas.empty() ? json() : json(machine.cublas)},
          {"cuda_built", cuda_compiled()}};
}

void append(CompatibilityRows rows, CheckedTarget& checked) {
  for (CompatibilityRow& row : rows) checked.rows.push_back(std::move(row));
}

}  // namespace

Compatibility::Compatibility(const CompatibilityQuestion& question, Findings& findings)
    : question_(question), findings_(findings), machine_(examine_machine()) {}

void Compatibility::migration(const Detected& target, const InputFacts& facts,
                              CheckedTarget& checked) {
  CompatibilityRows rows = target.kind == TargetKind::kDataset
                               ? check_dataset_migration(target.path, question_.from)
                               : check_migration(facts, question_.from);
  add_findings(rows, question_.migration_asked, "migration-open", findings_);
  append(std::move(rows), checked);
}

void Compatibility::stacks(const InputFacts& facts, CheckedTarget& checked) {
  std::optional<bool> fp8;
  if (question_.hardware) fp8 = question_.hardware->gpu->fp8_form == "E4M3";
  for (int i = 0; i < kStacks; ++i) {
    const auto stack = static_cast<Stack>(i);
    if (question_.stack && *question_.stack != stack) continue;
    CompatibilityRows rows = check_stack(facts, stack, fp8);
    add_findings(rows, question_.stack.has_value(), "target-not-ready", findings_);
    append(std::move(rows), checked);
  }
}

void Compatibility::gpus(const InputFacts& facts, CheckedTarget& checked) {
  if (!question_.hardware || !facts.config) return;
  checked.groups.push_back(RuleGroup::kHardware);
  HardwareFit fit = check_hardware(facts, *question_.hardware, question_.workload);
  add_findings(fit.rows, true, "", findings_);
  fits_.push_back(fit_json(checked.path, fit));
  append(std::move(fit.rows), checked);
}

void Compatibility::add(const Detected& target, const ModelConfig* base, CheckedTarget& checked) {
  checked.groups.push_back(RuleGroup::kCompatibility);
  InputFacts facts = examine(target, base, model_ ? &*model_ : nullptr);
  migration(target, facts, checked);
  stacks(facts, checked);
  if (target.kind != TargetKind::kCheckpoint && target.kind != TargetKind::kGguf &&
      target.kind != TargetKind::kInference) {
    return;
  }
  gpus(facts, checked);
  CompatibilityRows work = machine_work_rows(facts, machine_, free_disk_bytes(target.path));
  add_findings(work, true, "", findings_);
  append(std::move(work), checked);
  if (facts.config) model_ = std::move(facts);
}

void Compatibility::finish(CheckResult& result) {
  findings_.begin_section();
  CheckedTarget& checked = result.targets.emplace_back();
  checked.path = kMachine;
  checked.kind = TargetKind::kMachine;
  checked.groups = {RuleGroup::kCompatibility};
  CompatibilityRows rows = machine_rows(machine_, cuda_compiled());
  add_findings(rows, true, "", findings_);
  append(std::move(rows), checked);
  if (question_.hardware) checked.rows.push_back(hardware_row(*question_.hardware));

  result.compatibility = {
      {"from", generation_name(question_.from)},
      {"to", generation_name(Generation::kV31)},
      {"migration_asked", question_.migration_asked},
      {"target", question_.stack ? json(stack_name(*question_.stack)) : json()},
      {"hardware", question_.hardware ? hardware_json(*question_.hardware) : json()},
      {"fit", fits_},
      {"machine", machine_json(machine_)}};
}

std::optional<Compatibility> make_compatibility(const CheckSettings& settings, Findings& findings) {
  if (!settings.compatibility) {
    for (const auto& [flag, value] :
         {std::pair("--from", settings.from), std::pair("--to", settings.to),
          std::pair("--target", settings.target), std::pair("--hardware", settings.hardware)}) {
      if (value.empty()) continue;
      throw Error(ExitCode::kUsage, fmt::format("{} goes with --compatibility", flag),
                  "add --compatibility");
    }
    return std::nullopt;
  }
  CompatibilityQuestion question;
  question.migration_asked = !settings.from.empty() || !settings.to.empty();
  if (!settings.from.empty()) question.from = generation_of("--from", settings.from);
  const Generation to = settings.to.empty() ? Generation::kV31 : generation_of("--to", settings.to);
  if (question.from == Generation::kV31 || to != Generation::kV31) {
    throw Error(ExitCode::kUsage,
                fmt::format("--from {} --to {}: this migration is not known",
                            generation_name(question.from), generation_name(to)),
                "known are v3 to v3.1 and r1 to v3.1");
  }
  if (!settings.target.empty()) {
    question.stack = parse_stack(settings.target);
    if (!question.stack) {
      unknown("--target", settings.target,
              names_of(kStacks, [](int i) { return stack_name(static_cast<Stack>(i)); }));
    }
  }
  if (!settings.hardware.empty()) question.hardware = parse_hardware(settings.hardware);
  question.workload = {settings.context, settings.batch};
  return Compatibility(question, findings);
}

}  // namespace ds::check
