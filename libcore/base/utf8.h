// UTF-8: finding and repairing what is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ds {

inline constexpr std::size_t kUtf8Valid = static_cast<std::size_t>(-1);

// Offset of the first byte that begins no valid UTF-8 sequence (overlong forms, surrogates and
// values above U+10FFFF are invalid), or kUtf8Valid.
std::size_t utf8_error(std::string_view text);
// `text` with every maximal invalid part replaced by U+FFFD (the WHATWG and Python rule).
std::string utf8_replace(std::string_view text);
// Appends one code point (a surrogate or a value above U+10FFFF becomes U+FFFD).
void append_utf8(std::string& text, std::uint32_t code_point);
// Whether text that is not UTF-8 looks like GBK (GB18030): most bytes above 0x7F are no UTF-8 and
// all of them pair up as double-byte characters, at least two of them Chinese.
bool looks_like_gbk(std::string_view text);

}  // namespace ds
