#include <fmt/format.h>

#include <charconv>
#include <unordered_map>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/text/byte_map.h"
#include "tools/convert/gguf_tokenizer.h"

namespace ds::convert {

namespace {

constexpr std::size_t kLongestToken = 512;

class RankFile {
 public:
  RankFile(std::string_view text, const std::string& name) : name_(name) {
    std::size_t line = 0;
    while (!text.empty()) {
      const std::size_t end = text.find('\n');
      std::string_view row = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      ++line;
      if (!row.empty() && row.back() == '\r') row.remove_suffix(1);
      if (!row.empty()) add(row, line);
    }
    if (bytes_.empty()) bad(1, "the file holds no ranks");
  }

  TiktokenVocabulary vocabulary() const {
    TiktokenVocabulary out;
    for (std::size_t rank = 0; rank < bytes_.size(); ++rank) {
      out.tokens.push_back(letters(bytes_[rank]));
      if (bytes_[rank].size() < 2) continue;
      const std::size_t cut = last_merge(bytes_[rank], rank);
      if (cut == 0) continue;  // more than two parts: no merge makes it
      const std::string_view token = bytes_[rank];
      out.merges.push_back(letters(token.substr(0, cut)) + " " + letters(token.substr(cut)));
    }
    return out;
  }

 private:
  [[noreturn]] void bad(std::size_t line, const std::string& what) const {
    throw Error(ExitCode::kBadInput, fmt::format("{}: line {}: {}", name_, line, what),
                "a rank file has a line of base64, a space and the rank for each token");
  }

  void add(std::string_view row, std::size_t line) {
    const std::size_t space = row.find(' ');
    if (space == std::string_view::npos) bad(line, "there is no space");
    std::string token = decode(row.substr(0, space), line);
    const std::string_view digits = row.substr(space + 1);
    std::uint64_t rank = 0;
    const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (end.ec != std::errc() || end.ptr != digits.data() + digits.size()) {
      bad(line, "the rank is no number");
    }
    if (rank != bytes_.size()) {
      bad(line, fmt::format("the rank is {}, needed is {}: one more than the line before", rank,
                            bytes_.size()));
    }
    if (token.empty() || token.size() > kLongestToken) {
      bad(line,
          fmt::format("the token has {} bytes, needed is 1 to {}", token.size(), kLongestToken));
    }
    if (!ranks_.emplace(token, rank).second) bad(line, "the token was there before");
    bytes_.push_back(std::move(token));
  }

  std::string decode(std::string_view text, std::size_t line) const {
    std::string out;
    std::uint32_t bits = 0;
    int held = 0;
    std::size_t padding = 0;
    for (const char c : text) {
      if (c == '=') {
        ++padding;
        continue;
      }
      const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                        : c >= 'a' && c <= 'z' ? c - 'a' + 26
                        : c >= '0' && c <= '9' ? c - '0' + 52
                        : c == '+'             ? 62
                        : c == '/'             ? 63
                                               : -1;
      if (value < 0 || padding > 0) bad(line, "the token is no base64");
      bits = (bits << 6U) | static_cast<std::uint32_t>(value);
      held += 6;
      if (held >= 8) {
        held -= 8;
        out += static_cast<char>((bits >> static_cast<unsigned>(held)) & 0xffU);
      }
    }
    if (text.size() % 4 != 0 || padding > 2) bad(line, "the token is no whole base64");
    return out;
  }

  static std::string letters(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) append_utf8(out, byte_code_points()[static_cast<unsigned char>(c)]);
    return out;
  }

  // Where the two parts meet that lower ranks make of the token; 0 when they are more than two.
  std::size_t last_merge(std::string_view token, std::size_t below) const {
    std::vector<std::string_view> parts;
    for (std::size_t i = 0; i < token.size(); ++i) parts.push_back(token.substr(i, 1));
    while (parts.size() > 2) {
      std::size_t best = below, at = 0;
      for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
        const std::string_view pair(parts[i].data(), parts[i].size() + parts[i + 1].size());
        const auto found = ranks_.find(std::string(pair));
        if (found == ranks_.end() || found->second >= best) continue;
        best = found->second;
        at = i;
      }
      if (best == below) return 0;
      parts[at] = {parts[at].data(), parts[at].size() + parts[at + 1].size()};
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    }
    return parts[0].size();
  }

  const std::string& name_;
  std::vector<std::string> bytes_;  // by rank
  std::unordered_map<std::string, std::size_t> ranks_;
};

}  // namespace

TiktokenVocabulary read_tiktoken(std::string_view ranks, const std::string& name) {
  return RankFile(ranks, name).vocabulary();
}

}  // namespace ds::convert
