// Python's methods of texts.
#include <fmt/format.h>

#include <algorithm>

#include "libcore/text/jinja_builtins.h"
#include "libcore/text/jinja_unicode.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_letter(char c) { return is_lower(c) || is_upper(c); }
char to_upper(char c) { return is_lower(c) ? static_cast<char>(c - 'a' + 'A') : c; }
char to_lower(char c) { return is_upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

// Scripts without case, and signs.
bool has_no_case(std::uint32_t c) {
  return (c >= 0x2010 && c <= 0x2027) || (c >= 0x2500 && c <= 0x25ff) ||
         (c >= 0x2e80 && c <= 0xa63f) || (c >= 0xac00 && c <= 0xd7a3) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0xff5b && c <= 0xffdc) ||
         (c >= 0x1f300 && c <= 0x1faff);
}

const std::string& need_text(Machine& machine, const Value& value, std::string_view what) {
  if (!value.is(Kind::kString)) {
    machine.raise(fmt::format("{} needs a text, found is a {}", what, type_name(value)));
  }
  return *value.text;
}

Value split_spaces(Machine& machine, std::string_view text, std::int64_t most, bool from_right) {
  std::vector<Value> parts;
  std::string_view rest = from_right ? right_stripped(text) : left_stripped(text);
  while (!rest.empty()) {
    machine.step();
    if (most >= 0 && static_cast<std::int64_t>(parts.size()) >= most) {
      parts.push_back(machine.text(std::string(rest)));
      break;
    }
    if (from_right) {
      std::size_t begin = rest.size();
      while (begin > 0) {
        std::size_t last = begin - 1;
        while (last > 0 && (static_cast<unsigned char>(rest[last]) & 0xc0u) == 0x80u) --last;
        if (space_at(rest, last) > 0) break;
        begin = last;
      }
      parts.push_back(machine.text(std::string(rest.substr(begin))));
      rest = right_stripped(rest.substr(0, begin));
    } else {
      std::size_t end = 0;
      while (end < rest.size() && space_at(rest, end) == 0) ++end;
      parts.push_back(machine.text(std::string(rest.substr(0, end))));
      rest = left_stripped(rest.substr(end));
    }
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return machine.list(std::move(parts));
}

Value split(Machine& machine, std::string_view text, const Value* separator, std::int64_t most,
            bool from_right) {
  if (separator == nullptr || separator->is(Kind::kNone)) {
    return split_spaces(machine, text, most, from_right);
  }
  const std::string& mark = need_text(machine, *separator, "split");
  if (mark.empty()) machine.raise("split at the empty text");
  machine.search(text, mark);
  std::vector<Value> parts;
  std::string_view rest = text;
  while (most < 0 || static_cast<std::int64_t>(parts.size()) < most) {
    const std::size_t at = from_right ? rest.rfind(mark) : rest.find(mark);
    if (at == std::string_view::npos) break;
    const std::string_view tail = rest.substr(at + mark.size());
    parts.push_back(machine.text(std::string(from_right ? tail : rest.substr(0, at))));
    rest = from_right ? rest.substr(0, at) : tail;
  }
  parts.push_back(machine.text(std::string(rest)));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return machine.list(std::move(parts));
}

Value partition(Machine& machine, const std::string& text, const std::string& mark, bool last) {
  if (mark.empty()) machine.raise("partition at the empty text");
  machine.search(text, mark);
  const std::size_t at = last ? text.rfind(mark) : text.find(mark);
  std::vector<Value> parts;
  if (at == std::string::npos) {
    parts = {machine.text(last ? "" : text), machine.text(""), machine.text(last ? text : "")};
  } else {
    parts = {machine.text(text.substr(0, at)), machine.text(mark),
             machine.text(text.substr(at + mark.size()))};
  }
  return machine.list(std::move(parts), List::Form::kTuple);
}

Value begins_or_ends(Machine& machine, const std::string& text, const Value& with, bool begins) {
  const auto one = [&](const Value& part) {
    const std::string& affix = need_text(machine, part, begins ? "startswith" : "endswith");
    return begins ? text.starts_with(affix) : text.ends_with(affix);
  };
  if (with.is(Kind::kList) && with.list->form == List::Form::kTuple) {
    return Value::of(std::any_of(with.list->items.begin(), with.list->items.end(), one));
  }
  return Value::of(one(with));
}

// isdigit, isalpha, ...: of texts of ASCII only.
Value all_of_kind(Machine& machine, std::string_view text, const std::string& name) {
  if (!is_ascii(text)) machine.unsupported(fmt::format("{} of letters beyond ASCII", name));
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto all = [&](auto&& kind) {
    return Value::of(!text.empty() && std::all_of(text.begin(), text.end(), kind));
  };
  if (name == "isdigit" || name == "isnumeric" || name == "isdecimal") return all(digit);
  if (name == "isalpha") return all(is_letter);
  if (name == "isalnum") return all([&](char c) { return digit(c) || is_letter(c); });
  if (name == "isspace") return Value::of(!text.empty() && left_stripped(text).empty());
  const bool upper = std::any_of(text.begin(), text.end(), is_upper);
  const bool lower = std::any_of(text.begin(), text.end(), is_lower);
  return Value::of(name == "isupper" ? upper && !lower : lower && !upper);
}

}  // namespace

void need_plain_case(Machine& machine, std::string_view text) {
  machine.step(text.size() / 16);
  for (std::size_t i = 0; i < text.size(); i += length_at(text, i)) {
    const std::uint32_t c = code_point_at(text, i);
    if (c >= 0x80 && !has_no_case(c)) machine.unsupported("the case of letters beyond a-z");
  }
}

std::string upper(Machine& machine, std::string_view text) {
  need_plain_case(machine, text);
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), to_upper);
  return out;
}

std::string lower(Machine& machine, std::string_view text) {
  need_plain_case(machine, text);
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(), to_lower);
  return out;
}

std::string capitalized(Machine& machine, std::string_view text) {
  std::string out = lower(machine, text);
  if (!out.empty()) out[0] = to_upper(out[0]);
  return out;
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const std::uint32_t c = code_point_at(text, i);
    std::size_t length = length_at(text, i);
    const bool ends = (c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
    if (ends) {
      lines.push_back(text.substr(begin, i - begin));
      if (c == '\r' && i + 1 < text.size() && text[i + 1] == '\n') ++length;
      begin = i + length;
    }
    i += length;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string_view stripped(Machine& machine, std::string_view text, const Value* characters,
                          bool left, bool right) {
  machine.step(text.size() / 64);
  if (characters == nullptr || characters->is(Kind::kNone)) {
    if (left) text = left_stripped(text);
    if (right) text = right_stripped(text);
    return text;
  }
  const std::string& set = need_text(machine, *characters, "strip");
  machine.search(text, set);
  const auto in_set = [&](std::string_view one) {
    for (std::size_t i = 0; i < set.size(); i += length_at(set, i)) {
      if (set.compare(i, length_at(set, i), one) == 0) return true;
    }
    return false;
  };
  while (left && !text.empty() && in_set(text.substr(0, length_at(text, 0)))) {
    text.remove_prefix(length_at(text, 0));
  }
  while (right && !text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xc0u) == 0x80u) --last;
    if (!in_set(text.substr(last))) break;
    text = text.substr(0, last);
  }
  return text;
}

std::string replaced(Machine& machine, std::string_view text, std::string_view from,
                     std::string_view to, std::int64_t count) {
  if (from.empty()) machine.unsupported("replacing the empty text");
  machine.search(text, from);
  std::string out;
  while (count != 0) {
    const std::size_t at = text.find(from);
    if (at == std::string_view::npos) break;
    machine.charge(to.size());
    out.append(text.substr(0, at)).append(to);
    text.remove_prefix(at + from.size());
    --count;
  }
  return out.append(text);
}

Value call_text_method(Machine& machine, const Callable& method, const Arguments& arguments) {
  const std::string& text = *method.self.text;
  const std::string& name = method.name;
  machine.step(text.size() / 64);
  Parameters given(machine, name, arguments);
  const auto done = [&](Value value) {
    given.finish();
    return value;
  };
  if (name == "upper") return done(machine.text(upper(machine, text)));
  if (name == "lower") return done(machine.text(lower(machine, text)));
  if (name == "capitalize") return done(machine.text(capitalized(machine, text)));
  if (name == "title") {
    std::string out = lower(machine, text);
    for (std::size_t i = 0; i < out.size(); ++i) {
      if (i == 0 || !is_letter(out[i - 1])) out[i] = to_upper(out[i]);
    }
    if (!is_ascii(text)) machine.unsupported("title() of letters beyond a-z");
    return done(machine.text(std::move(out)));
  }
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Value* characters = given.next("chars");
    return done(machine.text(
        std::string(stripped(machine, text, characters, name != "rstrip", name != "lstrip"))));
  }
  if (name == "split" || name == "rsplit") {
    const Value* separator = given.next("sep");
    const std::int64_t most = given.integer("maxsplit", -1);
    return done(split(machine, text, separator, most, name == "rsplit"));
  }
  if (name == "splitlines") {
    std::vector<Value> lines;
    machine.charge(text.size() * sizeof(Value));
    for (const std::string_view line : lines_of(text)) {
      lines.push_back(machine.text(std::string(line)));
    }
    return done(machine.list(std::move(lines)));
  }
  if (name == "startswith" || name == "endswith") {
    const Value& affix = given.required("affix");
    return done(begins_or_ends(machine, text, affix, name == "startswith"));
  }
  if (name == "replace") {
    const std::string from = need_text(machine, given.required("old"), name);
    const std::string to = need_text(machine, given.required("new"), name);
    const std::int64_t count = given.integer("count", -1);
    return done(machine.text(replaced(machine, text, from, to, count)));
  }
  if (name == "join") {
    std::string out;
    bool first = true;
    for (const Value& part : items_of(machine, given.required("parts"))) {
      const std::string& piece = need_text(machine, part, "join");
      machine.charge(text.size() + piece.size());
      if (!first) out += text;
      first = false;
      out += piece;
    }
    return done(machine.text(std::move(out)));
  }
  if (name == "find" || name == "rfind" || name == "index" || name == "count") {
    const std::string part = need_text(machine, given.required("sub"), name);
    given.finish();
    machine.search(text, part);
    if (name == "count") {
      if (part.empty()) return Value::of(static_cast<std::int64_t>(code_points(text)) + 1);
      std::int64_t count = 0;
      for (std::size_t at = text.find(part); at != std::string::npos;
           at = text.find(part, at + part.size())) {
        ++count;
      }
      return Value::of(count);
    }
    const std::size_t at = name == "rfind" ? text.rfind(part) : text.find(part);
    if (at == std::string::npos) {
      if (name == "index") machine.raise("index: the text is not there");
      return Value::of(std::int64_t{-1});
    }
    return Value::of(static_cast<std::int64_t>(code_points(std::string_view(text).substr(0, at))));
  }
  if (name == "removeprefix" || name == "removesuffix") {
    const std::string affix = need_text(machine, given.required("affix"), name);
    std::string_view rest = text;
    if (name == "removeprefix" && rest.starts_with(affix)) rest.remove_prefix(affix.size());
    if (name == "removesuffix" && rest.ends_with(affix)) rest.remove_suffix(affix.size());
    return done(machine.text(std::string(rest)));
  }
  if (name == "partition" || name == "rpartition") {
    const std::string mark = need_text(machine, given.required("sep"), name);
    return done(partition(machine, text, mark, name == "rpartition"));
  }
  if (name == "isascii") return done(Value::of(is_ascii(text)));
  if (name == "isdigit" || name == "isnumeric" || name == "isdecimal" || name == "isalpha" ||
      name == "isalnum" || name == "isspace" || name == "isupper" || name == "islower") {
    return done(all_of_kind(machine, text, name));
  }
  machine.unsupported(fmt::format("the method {} of a text", name));
}

}  // namespace ds::jinja
