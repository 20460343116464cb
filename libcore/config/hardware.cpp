#include "libcore/config/hardware.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <charconv>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"

namespace ds {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr double kTera = 1e12;
constexpr std::int64_t kLargestCount = 1'000'000;

// H800's memory: a published trace of deepseek-ai/profile-data.
constexpr const char* kModel = "the maker's data sheet; ai-dynamo/aiconfigurator systems";
constexpr const char* kSheet = "the maker's data sheet, as remembered";
constexpr const char* kE4M3 = "E4M3";

// name, label, memory, capability, bandwidth, BF16, FP8, form of FP8, source
constexpr std::array kGpus{
    Gpu{"V100-16G", "NVIDIA V100 SXM2", 16 * kGiB, 70, 0.900 * kTera, 0, 0, "", kSheet},
    Gpu{"V100-32G", "NVIDIA V100 SXM2", 32 * kGiB, 70, 0.900 * kTera, 0, 0, "", kSheet},
    Gpu{"T4-16G", "NVIDIA T4", 15 * kGiB, 75, 0.320 * kTera, 0, 0, "", kSheet},
    Gpu{"A100-40G", "NVIDIA A100 SXM 40 GB", 40 * kGiB, 80, 1.555 * kTera, 312 * kTera, 0, "",
        kSheet},
    Gpu{"A100-80G", "NVIDIA A100 SXM 80 GB", 80 * kGiB, 80, 2.039 * kTera, 312 * kTera, 0, "",
        kModel},
    Gpu{"A800-80G", "NVIDIA A800 SXM 80 GB", 80 * kGiB, 80, 2.039 * kTera, 312 * kTera, 0, "",
        kSheet},
    Gpu{"A30-24G", "NVIDIA A30", 24 * kGiB, 80, 0.933 * kTera, 165 * kTera, 0, "", kSheet},
    Gpu{"A10-24G", "NVIDIA A10", 24 * kGiB, 86, 0.600 * kTera, 125 * kTera, 0, "", kSheet},
    Gpu{"A40-48G", "NVIDIA A40", 48 * kGiB, 86, 0.696 * kTera, 149.7 * kTera, 0, "", kSheet},
    Gpu{"A6000-48G", "NVIDIA RTX A6000", 48 * kGiB, 86, 0.768 * kTera, 154.8 * kTera, 0, "",
        kSheet},
    Gpu{"RTX3090-24G", "NVIDIA GeForce RTX 3090", 24 * kGiB, 86, 0.936 * kTera, 71 * kTera, 0, "",
        kSheet},
    Gpu{"L4-24G", "NVIDIA L4", 24 * kGiB, 89, 0.300 * kTera, 121 * kTera, 242 * kTera, kE4M3,
        kSheet},
    Gpu{"L20-48G", "NVIDIA L20", 48 * kGiB, 89, 0.864 * kTera, 119.5 * kTera, 239 * kTera, kE4M3,
        kSheet},
    Gpu{"L40-48G", "NVIDIA L40", 48 * kGiB, 89, 0.864 * kTera, 181 * kTera, 362 * kTera, kE4M3,
        kSheet},
    Gpu{"L40S-48G", "NVIDIA L40S", 48 * kGiB, 89, 0.864 * kTera, 362 * kTera, 733 * kTera, kE4M3,
        kSheet},
    Gpu{"RTX4090-24G", "NVIDIA GeForce RTX 4090", 24 * kGiB, 89, 1.008 * kTera, 165 * kTera,
        330 * kTera, kE4M3, kSheet},
    Gpu{"RTX6000-Ada-48G", "NVIDIA RTX 6000 Ada", 48 * kGiB, 89, 0.960 * kTera, 364 * kTera,
        728 * kTera, kE4M3, kSheet},
    Gpu{"H100-80G", "NVIDIA H100 SXM", 80 * kGiB, 90, 3.35 * kTera, 989 * kTera, 1979 * kTera,
        kE4M3, kModel},
    Gpu{"H100-PCIe-80G", "NVIDIA H100 PCIe", 80 * kGiB, 90, 2.0 * kTera, 756 * kTera, 1513 * kTera,
        kE4M3, kModel},
    Gpu{"H100-NVL-94G", "NVIDIA H100 NVL", 94 * kGiB, 90, 3.9 * kTera, 835 * kTera, 1671 * kTera,
        kE4M3, kModel},
    Gpu{"H800-80G", "NVIDIA H800 SXM", 84'943'110'144, 90, 3.35 * kTera, 989 * kTera, 1979 * kTera,
        kE4M3, kModel},
    Gpu{"H20-96G", "NVIDIA H20", 96 * kGiB, 90, 4.0 * kTera, 148 * kTera, 296 * kTera, kE4M3,
        kSheet},
    Gpu{"H20-141G", "NVIDIA H20 141 GB", 143'771 * kMiB, 90, 4.8 * kTera, 148 * kTera, 296 * kTera,
        kE4M3, kSheet},
    Gpu{"H200-141G", "NVIDIA H200", 143'771 * kMiB, 90, 4.8 * kTera, 989 * kTera, 1979 * kTera,
        kE4M3, kModel},
    Gpu{"GH200-96G", "NVIDIA GH200", 96 * kGiB, 90, 4.0 * kTera, 989 * kTera, 1979 * kTera, kE4M3,
        kSheet},
    Gpu{"B200-180G", "NVIDIA B200", 180 * kGiB, 100, 7.7 * kTera, 2250 * kTera, 4500 * kTera, kE4M3,
        kModel},
    Gpu{"GB200-186G", "NVIDIA GB200", 186'000'000'000, 100, 8.0 * kTera, 2500 * kTera, 5000 * kTera,
        kE4M3, kModel},
    Gpu{"B300-288G", "NVIDIA B300", 288'000'000'000, 103, 7.75 * kTera, 2250 * kTera, 4500 * kTera,
        kE4M3, kModel},
    Gpu{"GB300-288G", "NVIDIA GB300", 288'000'000'000, 103, 8.0 * kTera, 2500 * kTera, 5000 * kTera,
        kE4M3, kModel},
    Gpu{"RTX5090-32G", "NVIDIA GeForce RTX 5090", 32 * kGiB, 120, 1.792 * kTera, 209 * kTera,
        419 * kTera, kE4M3, kSheet},
    Gpu{"MI300X-192G", "AMD Instinct MI300X", 192 * kGiB, 0, 5.3 * kTera, 1307 * kTera,
        2615 * kTera, "E4M3FNUZ", kSheet},
};

// Small letters and figures alone, a B behind the memory's G taken off.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0) out += static_cast<char>(std::tolower(byte));
  }
  if (out.ends_with("gib")) out.erase(out.size() - 2);
  if (out.ends_with("gb")) out.pop_back();
  return out;
}

// "h100" of "H100-80G".
std::string without_memory(std::string_view name) { return plain(name.substr(0, name.rfind('-'))); }

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const Gpu& gpu : kGpus) all.emplace_back(gpu.name);
  return all;
}

[[noreturn]] void refuse(std::string_view text, const std::string& why, const std::string& first) {
  std::string list;
  for (const std::string& name : names()) list += (list.empty() ? "" : ", ") + name;
  throw Error(ExitCode::kUsage, fmt::format("--hardware {}: {}", quote_text(text), why),
              first + "known are " + list + "; with a number before it, as 8xH100-80G");
}

}  // namespace

std::span<const Gpu> known_gpus() { return kGpus; }

std::string Hardware::text() const { return fmt::format("{}x{}", count, gpu->name); }

std::string capability_name(const Gpu& gpu) {
  return gpu.capability > 0 ? fmt::format("sm_{}", gpu.capability) : "no compute capability";
}

Hardware parse_hardware(std::string_view text) {
  Hardware out;
  std::string_view rest = text;
  const auto skip = [&] {
    while (!rest.empty() && (rest.front() == ' ' || rest.front() == '*')) rest.remove_prefix(1);
  };
  skip();
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), count);
  const bool numbered = end != rest.data();
  if (numbered) {
    const bool negative = rest.front() == '-';
    rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
    skip();
    if (rest.starts_with("x") || rest.starts_with("X")) rest.remove_prefix(1);
    if (error != std::errc() || negative || count < 1 || count > kLargestCount) {
      refuse(text, fmt::format("the number of GPUs must be from 1 to {}", kLargestCount), "");
    }
    out.count = count;
  }
  const std::string wanted = plain(rest);
  if (wanted.empty()) refuse(text, "a GPU's name is missing", "");
  std::vector<const Gpu*> found;
  for (const Gpu& gpu : kGpus) {
    if (plain(gpu.name) == wanted) {
      out.gpu = &gpu;
      return out;
    }
    if (without_memory(gpu.name) == wanted) found.push_back(&gpu);
  }
  if (found.size() == 1) {
    out.gpu = found.front();
    return out;
  }
  if (!found.empty()) {
    std::string list;
    for (const Gpu* gpu : found) list += (list.empty() ? "" : " or ") + std::string(gpu->name);
    refuse(text, "this GPU is known with more than one size of memory", "say " + list + "; ");
  }
  const std::string nearest = nearest_name(std::string(rest), names());
  refuse(text, "this GPU is not known",
         nearest.empty() ? "" : fmt::format("did you mean {}? ", nearest));
}

}  // namespace ds
