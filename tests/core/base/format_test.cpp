#include "libcore/base/format.h"

#include <doctest/doctest.h>

#include <cmath>

#include "libcore/base/utf8.h"

using namespace ds;

TEST_CASE("numbers for people") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1024) == "1.0 KiB");
  CHECK(format_bytes(1288490189) == "1.2 GiB");
  CHECK(format_bytes(1048575) == "1.0 MiB");
  CHECK(format_bytes(UINT64_MAX) == "16.0 EiB");
  CHECK(format_count(0) == "0");
  CHECK(format_count(-999) == "-999");
  CHECK(format_count(1000) == "1,000");
  CHECK(format_count(-1234567) == "-1,234,567");
  CHECK(format_count(INT64_MIN) == "-9,223,372,036,854,775,808");
  CHECK(format_short(950) == "950");
  CHECK(format_short(1500) == "1.5K");
  CHECK(format_short(671026419200.0) == "671.0B");
  CHECK(format_short(999960) == "1.0M");
  CHECK(format_duration(0.85) == "850 ms");
  CHECK(format_duration(12.34) == "12.3 s");
  CHECK(format_duration(59.97) == "1m 00s");
  CHECK(format_duration(185) == "3m 05s");
  CHECK(format_duration(7380) == "2h 03m");
  CHECK(format_duration(3 * 86400 + 4 * 3600) == "3d 04h");
  CHECK(format_duration(-1) == "-");
  CHECK(format_duration(std::nan("")) == "-");
}

TEST_CASE("sizes as people write them") {
  CHECK(parse_size("200KB") == 200000u);
  CHECK(parse_size("5GiB") == std::uint64_t{5} << 30);
  CHECK(parse_size("5GB") == 5000000000u);
  CHECK(parse_size(" 1.5 tb ") == 1500000000000u);
  CHECK(parse_size("0.1GB") == 100000000u);
  CHECK(parse_size("4096") == 4096u);
  CHECK(parse_size("7b") == 7u);
  CHECK(parse_size("18446744073709551615") == UINT64_MAX);
  for (const char* bad : {"", "GB", "-1GB", "5G", "5K", "1e9", "5 GBit", "1.", ".5GB", "5GB x",
                          "18446744073709551616", "20000PiB", "99999999999999999999GB", "1,000",
                          "nan", "0x10", "5iB"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_size(bad).has_value());
  }
}

TEST_CASE("texts in messages are harmless and short") {
  CHECK(quote_text("a b") == "\"a b\"");
  CHECK(quote_text("a\n\x1b[31m") == "\"a\\x0a\\x1b[31m\"");
  CHECK(quote_text("\xff\xe4\xb8\xad") == "\"\\xff\xe4\xb8\xad\"");
  CHECK(quote_text(std::string(500, 'x'), 10) == "\"xxxxxxxxxx\"... (500 bytes)");
  CHECK(quote_text("\xe4\xb8\xad\xe4\xb8\xad", 4) == "\"\xe4\xb8\xad\"... (6 bytes)");
}

TEST_CASE("utf-8: first invalid byte") {
  const auto at = [](std::string_view text) { return utf8_error(text); };
  CHECK(at("") == kUtf8Valid);
  CHECK(at("plain ascii longer than eight bytes") == kUtf8Valid);
  CHECK(
      at("\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf0\x90\x80\x80\xf4\x8f\xbf\xbf") ==
      kUtf8Valid);
  CHECK(at("abcdefgh\x80") == 8);
  CHECK(at("ab\xc0\x80") == 2);        // overlong
  CHECK(at("\xc1\xbf") == 0);          // overlong
  CHECK(at("\xe0\x9f\xbf") == 0);      // overlong
  CHECK(at("\xf0\x8f\xbf\xbf") == 0);  // overlong
  CHECK(at("\xed\xa0\x80") == 0);      // surrogate
  CHECK(at("\xf4\x90\x80\x80") == 0);  // above U+10FFFF
  CHECK(at("\xf5\x80\x80\x80") == 0);
  CHECK(at("x\xe4\xb8") == 1);  // cut
  CHECK(at("x\xe4\xb8"
           "y") == 1);
  CHECK(at("\xff") == 0);
}

TEST_CASE("utf-8: replacement follows the WHATWG and Python rule") {
  const std::string r = "\xef\xbf\xbd";
  CHECK(utf8_replace("a\xff"
                     "b") == "a" + r + "b");
  CHECK(utf8_replace("\xe4\xb8") == r);
  CHECK(utf8_replace("\xe4\xb8z") == r + "z");
  CHECK(utf8_replace("\xed\xa0\x80") == r + r + r);
  CHECK(utf8_replace("\xf0\x9f\x98") == r);
  CHECK(utf8_replace("\xf0\x80\x80\x80") == r + r + r + r);
  CHECK(utf8_replace("ok \xe4\xb8\xad") == "ok \xe4\xb8\xad");
  std::string text;
  for (const std::uint32_t c : {0x41u, 0xe9u, 0x4e2du, 0x1f600u, 0xd800u, 0x110000u}) {
    append_utf8(text, c);
  }
  CHECK(text == "A\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80" + r + r);
}

TEST_CASE("GBK is told from broken UTF-8") {
  CHECK(looks_like_gbk("{\"a\":\"\xd6\xd0\xce\xc4\xb2\xe2\xca\xd4\"}"));  // zhongwen ceshi
  CHECK_FALSE(looks_like_gbk("\xe4\xb8\xad\xe6\x96\x87\xe6\xb5\x8b\xe8\xaf\x95"));  // UTF-8
  CHECK_FALSE(looks_like_gbk("\xe4\xb8\xad\xe6\x96\xe6\xb5\x8b\xe8\xaf\x95"));      // a byte lost
  CHECK_FALSE(looks_like_gbk("caf\xe9 au lait"));                                   // Latin-1
  CHECK_FALSE(looks_like_gbk("plain"));
}
