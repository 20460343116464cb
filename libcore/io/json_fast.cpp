#include "libcore/io/json_fast.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <bit>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "libcore/base/utf8.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;
using Members = std::vector<std::pair<const std::string, Json>>;

constexpr int kMostDepth = 64;
// Names are compared with each other; more of them are the other parser's work.
constexpr std::size_t kMostMembers = 64;

class FastParser {
 public:
  explicit FastParser(std::string_view text) : at_(text.data()), end_(at_ + text.size()) {}

  bool run(Json& value) {
    skip_space();
    if (!parse_value(value, 0)) return false;
    skip_space();
    return at_ == end_;
  }

 private:
  void skip_space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) ++at_;
  }
  bool consume(char c) {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  bool word(std::string_view name) {
    if (static_cast<std::size_t>(end_ - at_) < name.size()) return false;
    if (std::memcmp(at_, name.data(), name.size()) != 0) return false;
    at_ += name.size();
    return true;
  }

  bool parse_value(Json& value, int depth) {
    if (at_ == end_ || depth > kMostDepth) return false;
    switch (*at_) {
      case '{':
        return parse_object(value, depth);
      case '[':
        return parse_array(value, depth);
      case '"':
        if (!value.is_string()) value = Json(Json::value_t::string);
        return parse_string(value.get_ref<std::string&>());
      case 't':
        value = true;
        return word("true");
      case 'f':
        value = false;
        return word("false");
      case 'n':
        value = nullptr;
        return word("null");
      default:
        return parse_number(value);
    }
  }

  bool parse_object(Json& value, int depth) {
    ++at_;
    if (!value.is_object()) value = Json(Json::value_t::object);
    // Behind the map's own emplace, which looks for the name first and then makes a copy of it.
    Members& members = value.get_ref<Json::object_t&>();
    std::size_t count = 0;
    skip_space();
    if (!consume('}')) {
      do {
        skip_space();
        if (!next_member(members, count)) return false;
        skip_space();
        if (!consume(':')) return false;
        skip_space();
        if (!parse_value(members[count].second, depth + 1)) return false;
        ++count;
        skip_space();
      } while (consume(','));
      if (!consume('}')) return false;
    }
    cut(members, count);
    return true;
  }

  // Makes member `count` that of the name that comes: what an earlier row left there when the name
  // is the same. Names before it stay.
  bool next_member(Members& members, std::size_t count) {
    if (count < members.size()) {
      const std::string& known = members[count].first;
      const std::size_t size = known.size();
      if (static_cast<std::size_t>(end_ - at_) > size + 1 && *at_ == '"' && at_[size + 1] == '"' &&
          std::memcmp(at_ + 1, known.data(), size) == 0 && json_plain_prefix(known) == size) {
        at_ += size + 2;
        return true;
      }
      cut(members, count);
    }
    if (count == kMostMembers) return false;
    std::string name;
    if (!parse_string(name)) return false;
    for (const auto& [known, other] : members) {
      if (known == name) return false;
    }
    if (members.empty()) members.reserve(4);
    members.emplace_back(std::move(name), nullptr);
    return true;
  }

  bool parse_array(Json& value, int depth) {
    ++at_;
    if (!value.is_array()) value = Json(Json::value_t::array);
    auto& elements = value.get_ref<Json::array_t&>();
    std::size_t count = 0;
    skip_space();
    if (!consume(']')) {
      do {
        skip_space();
        if (count == elements.size()) elements.emplace_back(nullptr);
        if (!parse_value(elements[count], depth + 1)) return false;
        ++count;
        skip_space();
      } while (consume(','));
      if (!consume(']')) return false;
    }
    cut(elements, count);
    return true;
  }

  template <class List>
  static void cut(List& list, std::size_t count) {
    while (list.size() > count) list.pop_back();
  }

  bool parse_string(std::string& text) {
    if (!consume('"')) return false;
    text.clear();
    while (true) {
      const std::size_t plain = json_plain_prefix({at_, static_cast<std::size_t>(end_ - at_)});
      text.append(at_, plain);
      at_ += plain;
      if (at_ == end_) return false;
      if (*at_ == '"') {
        ++at_;
        return true;
      }
      if (*at_ != '\\' || !parse_escape(text)) return false;
    }
  }

  bool parse_escape(std::string& text) {
    constexpr std::string_view kCodes = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    if (end_ - at_ < 2) return false;
    const char code = at_[1];
    at_ += 2;
    if (code == 'u') {
      std::uint32_t unit = 0;
      if (!hex4(unit)) return false;
      if (unit >= 0xd800 && unit < 0xdc00) {
        std::uint32_t low = 0;
        if (!consume('\\') || !consume('u') || !hex4(low) || low < 0xdc00 || low > 0xdfff) {
          return false;
        }
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
      } else if (unit >= 0xdc00 && unit <= 0xdfff) {
        return false;
      }
      append_utf8(text, unit);
      return true;
    }
    const std::size_t known = kCodes.find(code);
    if (known == std::string_view::npos) return false;
    text += kValues[known];
    return true;
  }

  bool hex4(std::uint32_t& unit) {
    if (end_ - at_ < 4) return false;
    const auto read = std::from_chars(at_, at_ + 4, unit, 16);
    if (read.ptr != at_ + 4) return false;
    at_ += 4;
    return true;
  }

  // Integers of up to 18 digits and short decimals; others have their rules.
  bool parse_number(Json& value) {
    const char* begin = at_;
    const bool negative = consume('-');
    const char* digits = at_;
    std::int64_t number = 0;
    while (at_ < end_ && *at_ >= '0' && *at_ <= '9' && at_ - digits < 18) {
      number = number * 10 + (*at_++ - '0');
    }
    if (at_ == digits || (*digits == '0' && at_ - digits > 1)) return false;
    if (at_ < end_ && *at_ >= '0' && *at_ <= '9') return false;
    if (at_ < end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E')) return parse_real(value, begin);
    if (negative) {
      value = -number;
    } else {
      value = static_cast<std::uint64_t>(number);
    }
    return true;
  }

  bool parse_real(Json& value, const char* begin) {
    if (*at_ == '.') {
      const char* fraction = ++at_;
      while (at_ < end_ && *at_ >= '0' && *at_ <= '9') ++at_;
      if (at_ == fraction) return false;
    }
    if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
      ++at_;
      if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
      const char* exponent = at_;
      while (at_ < end_ && *at_ >= '0' && *at_ <= '9') ++at_;
      if (at_ == exponent) return false;
    }
    double number = 0;
    const auto read = std::from_chars(begin, at_, number);
    if (read.ec != std::errc() || read.ptr != at_) return false;
    value = number;
    return true;
  }

  const char* at_;
  const char* end_;
};

}  // namespace

std::size_t json_plain_prefix(std::string_view text) {
  const char* begin = text.data();
  const char* at = begin;
  const char* end = begin + text.size();
#ifdef __SSE2__
  const __m128i quote = _mm_set1_epi8('"');
  const __m128i slash = _mm_set1_epi8('\\');
  const __m128i control = _mm_set1_epi8(0x1f);
  const auto special = [&](const char* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, slash)),
                        _mm_cmpeq_epi8(_mm_min_epu8(bytes, control), bytes));
  };
  for (; end - at >= 32; at += 32) {
    const __m128i low = special(at), high = special(at + 16);
    if (_mm_movemask_epi8(_mm_or_si128(low, high)) == 0) continue;
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(low)) |
                      static_cast<unsigned>(_mm_movemask_epi8(high)) << 16U;
    return static_cast<std::size_t>(at - begin + std::countr_zero(mask));
  }
  if (end - at >= 16) {
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(special(at)));
    if (mask != 0) return static_cast<std::size_t>(at - begin + std::countr_zero(mask));
    at += 16;
  }
  // The last bytes together with some before them that are known.
  if (at > begin && at < end) {
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(special(end - 16)));
    return static_cast<std::size_t>(mask != 0 ? end - 16 - begin + std::countr_zero(mask)
                                              : end - begin);
  }
#endif
  for (; at < end; ++at) {
    const auto c = static_cast<unsigned char>(*at);
    if (c < 0x20 || c == '"' || c == '\\') break;
  }
  return static_cast<std::size_t>(at - begin);
}

bool parse_json_fast(std::string_view text, nlohmann::ordered_json& value) {
  return FastParser(text).run(value);
}

}  // namespace ds
