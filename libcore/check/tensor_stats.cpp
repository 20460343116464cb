#define XXH_INLINE_ALL

#include "libcore/check/tensor_stats.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

namespace ds::check {
namespace {

using kernels::DType;

// Squares of the 128 magnitudes of E4M3FN, NaN as 0.
std::array<float, 128> e4m3_squares() {
  std::array<float, 128> squares{};
  for (unsigned code = 0; code < 127; ++code) {
    kernels::fp8_e4m3 value;
    value.bits = static_cast<std::uint8_t>(code);
    const auto wide = static_cast<float>(value);
    squares[code] = wide * wide;
  }
  return squares;
}

float e4m3_value(std::uint8_t code) {
  kernels::fp8_e4m3 value;
  value.bits = code;
  return static_cast<float>(value);
}

constexpr std::uint8_t kNan = 0x7f;
constexpr std::uint8_t kLargest = 0x7e;

template <class Bad>
std::uint64_t first_of(std::span<const std::byte> bytes, std::size_t width, Bad&& bad) {
  for (std::size_t i = 0; i * width < bytes.size(); ++i) {
    if (bad(bytes.data() + i * width)) return i;
  }
  return kNowhere;
}

// The magnitude needs a sample only: 4 KiB of every 64. f(begin, end) in bytes.
template <class F>
void for_sample(std::size_t size, F&& f) {
  constexpr std::size_t kSample = 4096;
  constexpr std::size_t kStride = 65536;
  for (std::size_t begin = 0; begin < size; begin += kStride) {
    f(begin, std::min(size, begin + kSample));
  }
}

void scan_fp8(std::span<const std::byte> bytes, TensorStats& stats) {
  const auto* data = reinterpret_cast<const std::uint8_t*>(bytes.data());
  const std::size_t size = bytes.size();
  // Byte-wide counters, one a column, over up to 255 rows: vectors of bytes without carries.
  constexpr std::size_t kRow = 64;
  constexpr std::size_t kRows = 255;
  std::size_t i = 0;
  std::uint8_t most = 0;
  while (i + kRow <= size) {
    std::array<std::uint8_t, kRow> nans{};
    std::array<std::uint8_t, kRow> full{};
    std::array<std::uint8_t, kRow> none{};
    std::array<std::uint8_t, kRow> top{};
    const std::size_t end = i + std::min(kRows, (size - i) / kRow) * kRow;
    for (; i < end; i += kRow) {
      for (std::size_t j = 0; j < kRow; ++j) {
        const auto code = static_cast<std::uint8_t>(data[i + j] & 0x7f);
        const auto is_nan = static_cast<std::uint8_t>(code == kNan);
        nans[j] = static_cast<std::uint8_t>(nans[j] + is_nan);
        full[j] = static_cast<std::uint8_t>(full[j] + static_cast<std::uint8_t>(code == kLargest));
        none[j] = static_cast<std::uint8_t>(none[j] + static_cast<std::uint8_t>(code == 0));
        const auto valued = static_cast<std::uint8_t>(code & static_cast<std::uint8_t>(is_nan - 1));
        top[j] = top[j] > valued ? top[j] : valued;
      }
    }
    for (std::size_t j = 0; j < kRow; ++j) {
      stats.bad += nans[j];
      stats.saturated += full[j];
      stats.zeros += none[j];
      most = std::max(most, top[j]);
    }
  }
  for (; i < size; ++i) {
    const auto code = static_cast<std::uint8_t>(data[i] & 0x7f);
    stats.bad += code == kNan ? 1 : 0;
    stats.saturated += code == kLargest ? 1 : 0;
    stats.zeros += code == 0 ? 1 : 0;
    if (code != kNan) most = std::max(most, code);
  }
  stats.largest_code = most;
  stats.largest = e4m3_value(most);
  if (stats.bad > 0) {
    stats.first_bad = first_of(bytes, 1, [](const std::byte* at) {
      return (std::to_integer<unsigned>(*at) & 0x7fu) == kNan;
    });
  }
  static const std::array<float, 128> kSquares = e4m3_squares();
  for_sample(size, [&](std::size_t begin, std::size_t end) {
    float sum = 0.0f;
    for (std::size_t j = begin; j < end; ++j) sum += kSquares[data[j] & 0x7f];
    stats.squares += sum;
    stats.sampled += end - begin;
  });
}

// Values of 16 or 32 bits that `widen` turns into float. The pass over all of them is integer
// arithmetic on rows, which runs on vectors.
template <class Bits, class Widen>
void scan_float(std::span<const std::byte> bytes, Bits exponent, Widen&& widen,
                TensorStats& stats) {
  constexpr auto kMagnitude = static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> 1);
  const std::size_t count = bytes.size() / sizeof(Bits);
  constexpr std::size_t kRow = 32;
  constexpr std::size_t kRows = 60000;  // counters of 16 bits
  std::array<Bits, kRow> row{};
  Bits most = 0;
  for (std::size_t begin = 0; begin < count;) {
    std::array<Bits, kRow> bad{};
    std::array<Bits, kRow> none{};
    std::array<Bits, kRow> top{};
    for (std::size_t rows = 0; rows < kRows && begin < count; ++rows, begin += kRow) {
      const std::byte* at = bytes.data() + begin * sizeof(Bits);
      if (count - begin >= kRow) {
        std::memcpy(row.data(), at, sizeof row);
      } else {
        row.fill(0);
        std::memcpy(row.data(), at, (count - begin) * sizeof(Bits));
      }
      for (std::size_t j = 0; j < kRow; ++j) {
        const auto magnitude = static_cast<Bits>(row[j] & kMagnitude);
        const auto is_bad = static_cast<Bits>(magnitude >= exponent);
        bad[j] = static_cast<Bits>(bad[j] + is_bad);
        none[j] = static_cast<Bits>(none[j] + static_cast<Bits>(magnitude == 0));
        const auto valued = static_cast<Bits>(magnitude & static_cast<Bits>(is_bad - 1));
        top[j] = top[j] > valued ? top[j] : valued;
      }
    }
    for (std::size_t j = 0; j < kRow; ++j) {
      stats.bad += bad[j];
      stats.zeros += none[j];
      most = std::max(most, top[j]);
    }
  }
  stats.zeros -= (kRow - count % kRow) % kRow;  // what filled the last row
  stats.largest = static_cast<double>(widen(most));
  if (stats.bad > 0) {
    stats.first_bad = first_of(bytes, sizeof(Bits), [&](const std::byte* at) {
      Bits value;
      std::memcpy(&value, at, sizeof value);
      return (value & exponent) == exponent;
    });
  }
  for_sample(bytes.size(), [&](std::size_t begin, std::size_t end) {
    double sum = 0.0;
    for (std::size_t at = begin; at + sizeof(Bits) <= end; at += sizeof(Bits)) {
      Bits value;
      std::memcpy(&value, bytes.data() + at, sizeof value);
      const double wide = (value & exponent) == exponent ? 0.0 : widen(value);
      sum += wide * wide;
    }
    stats.squares += sum;
    stats.sampled += (end - begin) / sizeof(Bits);
  });
}

float from_f16(std::uint16_t bits) {
  kernels::f16 value;
  value.bits = bits;
  return static_cast<float>(value);
}
float from_bf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

bool repeats(std::span<const std::byte> bytes, std::size_t width) {
  return bytes.size() <= width ||
         std::memcmp(bytes.data(), bytes.data() + width, bytes.size() - width) == 0;
}

}  // namespace

double TensorStats::rms() const {
  return sampled == 0 ? 0.0 : std::sqrt(squares / static_cast<double>(sampled));
}

TensorStats scan(DType dtype, std::span<const std::byte> bytes) {
  TensorStats stats;
  const auto width =
      std::max<std::size_t>(1, static_cast<std::size_t>(kernels::dtype_bits(dtype)) / 8);
  stats.elements = bytes.size() / width;
  stats.digest = XXH3_64bits(bytes.data(), bytes.size());
  stats.uniform = repeats(bytes, width);
  if (!bytes.empty()) std::memcpy(&stats.first_bits, bytes.data(), std::min(width, std::size_t{8}));
  stats.zero = stats.uniform && stats.first_bits == 0;
  switch (dtype) {
    case DType::kF8E4M3:
      scan_fp8(bytes, stats);
      break;
    case DType::kBF16:
      scan_float<std::uint16_t>(bytes, 0x7f80, from_bf16, stats);
      break;
    case DType::kF16:
      scan_float<std::uint16_t>(bytes, 0x7c00, from_f16, stats);
      break;
    case DType::kF32:
      scan_float<std::uint32_t>(
          bytes, 0x7f800000u, [](std::uint32_t bits) { return std::bit_cast<float>(bits); }, stats);
      break;
    case DType::kF8E8M0:
    case DType::kU8:
      // Exponents; U8 only as such scales.
      stats.first_bad = first_of(
          bytes, 1, [](const std::byte* at) { return std::to_integer<unsigned>(*at) == 0xffu; });
      if (stats.first_bad != kNowhere) stats.bad = 1;
      break;
    default:
      break;
  }
  return stats;
}

// Few enough to look at each.
void scan_scales(std::span<const std::byte> bytes, TensorStats& stats) {
  const std::size_t count = bytes.size() / 4;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, bytes.data() + 4 * i, 4);
    const auto value = std::bit_cast<float>(bits);
    if (!std::isfinite(value)) continue;
    if (value <= 0.0f) {
      ++stats.not_positive;
      stats.first_not_positive = std::min<std::uint64_t>(stats.first_not_positive, i);
    } else if ((bits & 0x7fffffu) != 0) {
      ++stats.mantissa;
      stats.first_mantissa = std::min<std::uint64_t>(stats.first_mantissa, i);
    }
    const double magnitude = std::fabs(value);
    if (magnitude > 0.0 && (stats.smallest == 0.0 || magnitude < stats.smallest)) {
      stats.smallest = magnitude;
    }
  }
}

void append(TensorStats& stats, const TensorStats& next) {
  if (stats.elements == 0) {
    stats = next;
    return;
  }
  const auto later = [&](std::uint64_t& mine, std::uint64_t theirs) {
    if (mine == kNowhere && theirs != kNowhere) mine = stats.elements + theirs;
  };
  later(stats.first_bad, next.first_bad);
  later(stats.first_not_positive, next.first_not_positive);
  later(stats.first_mantissa, next.first_mantissa);
  stats.elements += next.elements;
  stats.bad += next.bad;
  stats.not_positive += next.not_positive;
  stats.mantissa += next.mantissa;
  stats.saturated += next.saturated;
  stats.zeros += next.zeros;
  stats.largest_code = std::max(stats.largest_code, next.largest_code);
  stats.largest = std::max(stats.largest, next.largest);
  if (next.smallest > 0.0 && (stats.smallest == 0.0 || next.smallest < stats.smallest)) {
    stats.smallest = next.smallest;
  }
  stats.squares += next.squares;
  stats.sampled += next.sampled;
  stats.uniform = stats.uniform && next.uniform && stats.first_bits == next.first_bits;
  stats.zero = stats.zero && next.zero;
  const std::uint64_t both[2] = {stats.digest, next.digest};
  stats.digest = XXH3_64bits(both, sizeof both);
}

}  // namespace ds::check
