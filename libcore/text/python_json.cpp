#include "libcore/text/python_json.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/text/json_scan.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

void append_code_units(std::string& out, std::uint32_t code_point) {
  if (code_point < 0x10000) {
    out += fmt::format("\\u{:04x}", code_point);
    return;
  }
  code_point -= 0x10000;
  out +=
      fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (code_point >> 10), 0xdc00 + (code_point & 0x3ff));
}

// `text` is valid UTF-8.
void append_text(std::string& out, std::string_view text, bool ensure_ascii) {
  constexpr std::string_view kPlain = "\"\\\n\r\t\f\b";
  constexpr std::string_view kCodes = "\"\\nrtfb";
  out += '"';
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (const std::size_t known = kPlain.find(text[i]); known != std::string_view::npos) {
      out += '\\';
      out += kCodes[known];
    } else if (lead < 0x20 || (ensure_ascii && lead == 0x7f)) {
      append_code_units(out, lead);
    } else if (lead < 0x80 || !ensure_ascii) {
      out += text[i];
    } else {
      const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
      std::uint32_t code_point = lead & (0xffu >> (length + 1));
      for (std::size_t k = 1; k < length; ++k) {
        code_point = code_point << 6 | (static_cast<unsigned char>(text[++i]) & 0x3fu);
      }
      append_code_units(out, code_point);
    }
  }
  out += '"';
}

void append_any_text(std::string& out, const std::string& text, bool ensure_ascii) {
  if (utf8_error(text) == kUtf8Valid) {
    append_text(out, text, ensure_ascii);
  } else {
    append_text(out, utf8_replace(text), ensure_ascii);
  }
}

// repr(float): the shortest digits that read back; an exponent below -4 or from 16 on.
void append_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += std::isnan(value) ? "NaN" : value < 0 ? "-Infinity" : "Infinity";
    return;
  }
  std::array<char, 40> buffer{};
  const auto written = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                     std::chars_format::scientific);
  std::string_view text(buffer.data(), static_cast<std::size_t>(written.ptr - buffer.data()));
  if (text[0] == '-') {
    out += '-';
    text.remove_prefix(1);
  }
  const std::size_t mark = text.find('e');
  int exponent = 0;
  const std::size_t digits_at = mark + (text[mark + 1] == '+' ? 2 : 1);
  std::from_chars(text.data() + digits_at, text.data() + text.size(), exponent);
  std::string digits(1, text[0]);
  if (mark > 2) digits += text.substr(2, mark - 2);
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out += "." + digits.substr(1);
    out += fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  } else if (exponent < 0) {
    out += "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  } else {
    const auto whole = static_cast<std::size_t>(exponent) + 1;
    if (digits.size() < whole) digits.append(whole - digits.size(), '0');
    out += digits.substr(0, whole) + ".";
    out += digits.size() > whole ? digits.substr(whole) : "0";
  }
}

void append_value(std::string& out, const Json& value, bool ensure_ascii) {
  if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, member] : value.items()) {
      if (!first) out += ", ";
      first = false;
      append_any_text(out, key, ensure_ascii);
      out += ": ";
      append_value(out, member, ensure_ascii);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += ", ";
      append_value(out, value[i], ensure_ascii);
    }
    out += ']';
  } else if (value.is_string()) {
    append_any_text(out, value.get_ref<const std::string&>(), ensure_ascii);
  } else if (value.is_number_float()) {
    append_double(out, value.get<double>());
  } else {
    out += value.dump();
  }
}

// JSON's grammar of numbers: std::from_chars also takes "1.", ".5" and "01".
bool is_number(std::string_view token) {
  std::size_t at = token.starts_with('-') ? 1 : 0;
  const auto digits = [&] {
    const std::size_t begin = at;
    while (at < token.size() && token[at] >= '0' && token[at] <= '9') ++at;
    return at - begin;
  };
  const bool zero = at < token.size() && token[at] == '0';
  const std::size_t whole = digits();
  if (whole == 0 || (zero && whole > 1)) return false;
  if (at < token.size() && token[at] == '.') {
    ++at;
    if (digits() == 0) return false;
  }
  if (at < token.size() && (token[at] == 'e' || token[at] == 'E')) {
    ++at;
    if (at < token.size() && (token[at] == '+' || token[at] == '-')) ++at;
    if (digits() == 0) return false;
  }
  return at == token.size();
}

void append_number(JsonScan& scan, std::string& out, std::string_view token) {
  const bool fraction = token.find_first_of(".eE") != std::string_view::npos;
  if (!is_number(token)) scan.fail("no value where one is needed");
  if (!fraction) {
    out += token == "-0" ? "0" : token;
  } else {
    // A number beyond double is no value for the parser; Python reads infinity.
    double number = HUGE_VAL;
    const auto read = std::from_chars(token.data(), token.data() + token.size(), number);
    if (read.ptr != token.data() + token.size()) scan.fail("a broken number");
    if (read.ec == std::errc::result_out_of_range) {
      const bool tiny =
          token.find("e-") != std::string_view::npos || token.find("E-") != std::string_view::npos;
      number = std::copysign(tiny ? 0.0 : HUGE_VAL, token[0] == '-' ? -1.0 : 1.0);
    }
    append_double(out, number);
  }
}

void append_next(JsonScan& scan, std::string& out, bool ensure_ascii, int depth) {
  constexpr int kDepthLimit = 256;
  if (depth > kDepthLimit) scan.fail(fmt::format("values nested deeper than {}", kDepthLimit));
  std::string scratch;
  const char token = scan.peek();
  if (token == '{') {
    scan.expect('{');
    out += '{';
    bool first = true;
    if (!scan.consume('}')) {
      do {
        if (!first) out += ", ";
        first = false;
        append_text(out, scan.string(scratch), ensure_ascii);
        scan.expect(':');
        out += ": ";
        append_next(scan, out, ensure_ascii, depth + 1);
      } while (scan.consume(','));
      scan.expect('}');
    }
    out += '}';
  } else if (token == '[') {
    scan.expect('[');
    out += '[';
    bool first = true;
    if (!scan.consume(']')) {
      do {
        if (!first) out += ", ";
        first = false;
        append_next(scan, out, ensure_ascii, depth + 1);
      } while (scan.consume(','));
      scan.expect(']');
    }
    out += ']';
  } else if (token == '"') {
    append_text(out, scan.string(scratch), ensure_ascii);
  } else {
    const std::string_view scalar = scan.raw_value();
    if (scalar == "null" || scalar == "true" || scalar == "false") {
      out += scalar;
    } else {
      append_number(scan, out, scalar);
    }
  }
}

}  // namespace

std::string python_json(const Json& value, bool ensure_ascii) {
  std::string out;
  append_value(out, value, ensure_ascii);
  return out;
}

std::string python_json_text(std::string_view text, const std::string& name, bool ensure_ascii) {
  if (const std::size_t bad = utf8_error(text); bad != kUtf8Valid) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: byte {}: no UTF-8", name, bad));
  }
  JsonScan scan(text, name);
  std::string out;
  append_next(scan, out, ensure_ascii, 0);
  scan.peek();
  if (scan.offset() < text.size()) scan.fail("text after the end of the value");
  return out;
}

}  // namespace ds
