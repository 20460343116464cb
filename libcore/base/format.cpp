#include "libcore/base/format.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>

#include "libcore/base/utf8.h"

namespace ds {

std::string format_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  static constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  // 1023.95 would print as "1024.0".
  while (value >= 1023.95 && unit < 5) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string format_count(std::int64_t count) {
  std::string digits = fmt::format("{}", count);
  const std::size_t first = count < 0 ? 1 : 0;
  for (std::size_t i = digits.size(); i > first + 3;) {
    i -= 3;
    digits.insert(i, 1, ',');
  }
  return digits;
}

std::string format_short(double count) {
  if (!std::isfinite(count)) return "-";
  if (std::fabs(count) < 999.5) return fmt::format("{:.0f}", count);
  static constexpr char kUnits[] = {'K', 'M', 'B', 'T', 'Q'};
  double value = count / 1000;
  int unit = 0;
  while (std::fabs(value) >= 999.95 && unit < 4) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.1f}{}", value, kUnits[unit]);
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  if (seconds > 1e15) return fmt::format("{:.3g} s", seconds);
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 3600) return fmt::format("{}m {:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h {:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d {:02}h", whole / 86400, whole / 3600 % 24);
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  // Value = digits / 10^decimals, kept as integers so that "0.1GB" is exactly 100,000,000.
  unsigned __int128 digits = 0;
  std::uint64_t scale = 1;
  std::size_t i = 0;
  bool any = false;
  for (; i < text.size() && is_digit(text[i]); ++i) {
    digits = digits * 10 + static_cast<unsigned>(text[i] - '0');
    any = true;
    if (digits > UINT64_MAX) return std::nullopt;
  }
  if (!any) return std::nullopt;
  if (i < text.size() && text[i] == '.') {
    const std::size_t first = ++i;
    for (; i < text.size() && is_digit(text[i]); ++i) {
      if (i - first >= 9) return std::nullopt;
      digits = digits * 10 + static_cast<unsigned>(text[i] - '0');
      scale *= 10;
    }
    if (i == first) return std::nullopt;
  }
  while (i < text.size() && text[i] == ' ') ++i;
  std::string unit;
  for (; i < text.size(); ++i) {
    unit += static_cast<char>(std::tolower(static_cast<unsigned char>(text[i])));
  }
  std::uint64_t factor = 1;
  if (!unit.empty() && unit != "b") {
    static constexpr std::string_view kPrefixes = "kmgtp";
    const std::size_t power = kPrefixes.find(unit.front());
    const std::string_view rest = std::string_view(unit).substr(1);
    if (power == std::string_view::npos || (rest != "b" && rest != "ib")) return std::nullopt;
    for (std::size_t p = 0; p <= power; ++p) factor *= rest == "b" ? 1000 : 1024;
  }
  const unsigned __int128 bytes = digits * factor / scale;
  if (bytes > UINT64_MAX) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

std::string quote_text(std::string_view text, std::size_t limit) {
  std::size_t shown = std::min(text.size(), limit);
  // Not in the middle of a character.
  while (shown > 0 && shown < text.size() && (text[shown] & 0xc0) == 0x80) --shown;
  std::string out = "\"";
  std::string_view rest = text.substr(0, shown);
  while (!rest.empty()) {
    const std::size_t error = utf8_error(rest);
    const std::string_view good = rest.substr(0, error == kUtf8Valid ? rest.size() : error);
    for (const char c : good) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x20 || byte == 0x7f) {
        out += fmt::format("\\x{:02x}", byte);
      } else {
        out += c;
      }
    }
    rest.remove_prefix(good.size());
    if (!rest.empty()) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(rest.front()));
      rest.remove_prefix(1);
    }
  }
  out += '"';
  if (shown < text.size()) out += fmt::format("... ({} bytes)", text.size());
  return out;
}

}  // namespace ds
