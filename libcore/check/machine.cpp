#include "libcore/check/machine.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <sstream>

#include "libcore/base/format.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

// The driver's oldest series for CUDA 12 and for CUDA 13.
constexpr int kDriverOfCuda12 = 525;
constexpr int kDriverOfCuda13 = 580;
// As libcore/train/memory_plan.cpp counts them.
constexpr std::uint64_t kReadAhead = std::uint64_t{32} << 20;
constexpr std::uint64_t kLibraries = std::uint64_t{64} << 20;
constexpr const char* kSystem = "/proc, control groups";
constexpr const char* kSubject = "this machine";

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  constexpr std::size_t kMost = 1 << 20;  // thousands of CPUs repeat their flags
  std::string text(kMost, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  return text;
}

// The words behind "key   : " at the beginning of a line.
std::string field(const std::string& text, const std::string& key) {
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t begin = line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

bool loads_with_dlopen(const std::string& name) {
  void* library = ::dlopen(name.c_str(), RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return false;
  ::dlclose(library);
  return true;
}

int major_of(const std::string& version) {
  int major = 0;
  std::from_chars(version.data(), version.data() + version.size(), major);
  return major;
}

CompatibilityRow row(const char* requirement, Verdict verdict, const std::string& detail,
                     const std::string& action, const char* source, const char* rule = "") {
  return {.section = "machine",
          .subject = kSubject,
          .requirement = requirement,
          .verdict = verdict,
          .detail = detail,
          .action = action,
          .source = source,
          .rule = rule,
          .file = kSubject};
}

}  // namespace

MachineInfo examine_machine(const SystemPaths& paths,
                            const std::function<bool(const std::string&)>& loads) {
  MachineInfo machine;
  const std::string cpu = read_text(paths.proc / "cpuinfo");
  machine.processor = field(cpu, "model name");
  const std::string flags = " " + field(cpu, "flags") + " ";
  const auto all = [&](std::initializer_list<const char*> names) {
    return std::all_of(names.begin(), names.end(), [&](const char* name) {
      return flags.find(fmt::format(" {} ", name)) != std::string::npos;
    });
  };
  machine.avx2 = all({"avx2", "fma", "f16c"});
  machine.avx512 = all({"avx512f", "avx512bw", "avx512dq", "avx512vl"});
  machine.amx = all({"amx_tile", "amx_bf16"});
  machine.cpus = usable_cpus(paths);
  machine.memory = memory_info(paths);

  const fs::path driver = paths.proc / "driver" / "nvidia";
  std::istringstream words(field(read_text(driver / "version"), "NVRM version"));
  for (std::string word; words >> word;) {
    // "NVIDIA UNIX x86_64 Kernel Module  580.65.06  ...": the first number with a point.
    if (major_of(word) > 0 && word.find('.') != std::string::npos) {
      machine.driver = word;
      break;
    }
  }
  std::error_code code;
  for (fs::directory_iterator it(driver / "gpus", code), end; !code && it != end;
       it.increment(code)) {
    const std::string model = field(read_text(it->path() / "information"), "Model");
    if (!model.empty()) machine.gpus.push_back(model);
  }
  std::sort(machine.gpus.begin(), machine.gpus.end());
  if (!machine.driver.empty()) {
    const auto can_load = loads ? loads : loads_with_dlopen;
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
      if (!machine.cublas.empty() || !can_load(name)) continue;
      machine.cublas = name;
    }
  }
  return machine;
}

CompatibilityRows machine_rows(const MachineInfo& machine, bool cuda_built) {
  CompatibilityRows rows;
  std::string isa;
  for (const auto& [there, name] :
       std::array{std::pair(machine.avx2, "AVX2"), std::pair(machine.avx512, "AVX-512"),
                  std::pair(machine.amx, "AMX")}) {
    if (there) isa += fmt::format("{}{}", isa.empty() ? "" : ", ", name);
  }
  const std::string processor =
      fmt::format("{}{} CPUs; {}", machine.processor.empty() ? "" : machine.processor + ", ",
                  machine.cpus, isa.empty() ? "no AVX2" : isa);
  if (machine.avx2) {
    rows.push_back(row("processor", Verdict::kOk,
                       processor + (machine.amx      ? "; BF16 products run on AMX"
                                    : machine.avx512 ? "; BF16 is widened to F32"
                                                     : "; products run in F32"),
                       "", kSystem));
  } else {
    rows.push_back(row("processor", Verdict::kNeeds,
                       processor + ": everything runs, several times slower",
                       "a processor with AVX2, FMA and F16C for training",
                       "kvcache-ai/ktransformers issue 1645", "machine-isa"));
  }
  rows.push_back(row("memory", Verdict::kOk,
                     fmt::format("{} in all, {} available", format_bytes(machine.memory.total),
                                 format_bytes(machine.memory.available)),
                     "", kSystem));
  if (machine.driver.empty()) {
    rows.push_back(row("GPU", Verdict::kOk, "no NVIDIA driver: the CPU is used", "", kSystem));
    return rows;
  }
  std::string gpus;
  for (const std::string& gpu : machine.gpus) gpus += (gpus.empty() ? "" : ", ") + gpu;
  if (gpus.empty()) gpus = "no device";
  const std::string found =
      fmt::format("{}; driver {}; {}", gpus, machine.driver,
                  machine.cublas.empty() ? std::string("no libcublasLt") : machine.cublas);
  const int major = major_of(machine.driver);
  const char* source = "NVIDIA, CUDA compatibility guide";
  if (major < kDriverOfCuda12) {
    rows.push_back(row("GPU", Verdict::kNeeds, found,
                       fmt::format("driver {} or newer (CUDA 12), {} for CUDA 13", kDriverOfCuda12,
                                   kDriverOfCuda13),
                       source, "machine-driver"));
  } else if (machine.cublas.empty()) {
    rows.push_back(row(
        "GPU", Verdict::kNeeds, found,
        fmt::format("install CUDA {} libraries (libcublasLt)", major >= kDriverOfCuda13 ? 13 : 12),
        source, "machine-driver"));
  } else if (!cuda_built) {
    rows.push_back(row("GPU", Verdict::kNeeds, found + "; these programs were built without CUDA",
                       "build them with the CUDA toolkit", source));
  } else {
    rows.push_back(row("GPU", Verdict::kOk, found, "", source));
  }
  return rows;
}

CompatibilityRows machine_work_rows(const InputFacts& input, const MachineInfo& machine,
                                    std::uint64_t free_disk) {
  CompatibilityRows rows;
  const TensorFacts& tensors = input.tensors;
  if (tensors.count == 0) return rows;
  const auto disk = [&](const char* requirement, const char* work, std::uint64_t bytes) {
    const std::string sum = fmt::format(
        "{} needs {} of disk, {} are free where the input is; memory does not grow "
        "with the checkpoint",
        work, format_bytes(bytes), format_bytes(free_disk));
    if (bytes <= free_disk) {
      rows.push_back(row(requirement, Verdict::kOk, sum, "", "docs/convert.md"));
    } else {
      rows.push_back(row(requirement, Verdict::kNeeds, sum, "write to another disk",
                         "docs/convert.md", "machine-disk"));
      rows.back().file = input.input.path.string();
    }
  };
  if (input.input.kind != TargetKind::kCheckpoint) {
    // What the other programs read is made of it first.
    if (!input.gguf.one_way.empty()) return rows;
    disk("convert", "--to hf", input.gguf.blocks ? tensors.bytes_bf16 : tensors.bytes);
    return rows;
  }
  disk("convert", tensors.fp8 > 0 ? "--to bf16" : "a copy in 16 bits", tensors.bytes_bf16);
  disk("merge", "merging an adapter", tensors.bytes);

  const std::uint64_t available = machine.memory.available;
  // The layer that computes, what is read ahead of it at the least, and libraries.
  const std::uint64_t streamed =
      tensors.largest_layer + std::min(tensors.largest_layer, kReadAhead) + kLibraries;
  const std::string sum =
      fmt::format("weights {}, largest layer {}, available {}", format_bytes(tensors.bytes),
                  format_bytes(tensors.largest_layer), format_bytes(available));
  const char* source = "docs/architecture.md, a base larger than memory";
  if (tensors.bytes <= available) {
    rows.push_back(row("train LoRA", Verdict::kOk, sum + ": the base fits", "", source));
  } else if (streamed <= available) {
    rows.push_back(row("train LoRA", Verdict::kOk,
                       sum + ": the base is streamed, layer by layer (--weight_streaming)", "",
                       source));
  } else {
    rows.push_back(
        row("train LoRA", Verdict::kNeeds,
            sum + fmt::format(": streaming needs {} before activations", format_bytes(streamed)),
            "more memory; deepseek-finetune --dry_run says how much", source, "machine-memory"));
    rows.back().file = input.input.path.string();
  }
  return rows;
}

}  // namespace ds::check
