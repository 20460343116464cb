// "value | filter".
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "libcore/text/jinja_builtins.h"
#include "libcore/text/jinja_unicode.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

// Filters of jinja2 that are not written here.
constexpr std::array<std::string_view, 18> kOthers{
    "batch",     "center",   "e",         "escape", "filesizeformat", "forceescape",
    "format",    "groupby",  "pprint",    "random", "round",          "slice",
    "striptags", "truncate", "urlencode", "urlize", "wordwrap",       "xmlattr"};

Value to_json_filter(Machine& machine, const Value& value, const Arguments& arguments) {
  // transformers: tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)
  Parameters given(machine, "tojson", arguments);
  JsonStyle style;
  style.ensure_ascii = given.boolean("ensure_ascii", false);
  const Value* indent = given.next("indent");
  if (indent != nullptr && !indent->is(Kind::kNone)) {
    style.lines = true;
    style.item_separator = ",";
    if (indent->is(Kind::kString)) {
      style.indent = *indent->text;
    } else if (indent->is_integer()) {
      if (indent->as_integer() > 64) machine.limit("an indent above 64");
      style.indent.assign(static_cast<std::size_t>(std::max<std::int64_t>(indent->as_integer(), 0)),
                          ' ');
    } else {
      machine.raise(fmt::format("tojson: 'indent' is a {}", type_name(*indent)));
    }
  }
  const Value* separators = given.next("separators");
  if (separators != nullptr && !separators->is(Kind::kNone)) {
    const bool pair = separators->is(Kind::kList) && separators->list->items.size() == 2 &&
                      separators->list->items[0].is(Kind::kString) &&
                      separators->list->items[1].is(Kind::kString);
    if (!pair) machine.raise("tojson: 'separators' are no two texts");
    style.item_separator = *separators->list->items[0].text;
    style.key_separator = *separators->list->items[1].text;
  }
  style.sort_keys = given.boolean("sort_keys", false);
  given.finish();
  return machine.text(to_json(machine, value, style));
}

Value indented(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "indent", arguments);
  const Value* width = given.next("width");
  std::string space(4, ' ');
  if (width != nullptr && width->is(Kind::kString)) {
    space = *width->text;
  } else if (width != nullptr) {
    if (!width->is_integer()) machine.raise("indent: 'width' is no number");
    if (width->as_integer() > 256) machine.limit("an indent above 256");
    space.assign(static_cast<std::size_t>(std::max<std::int64_t>(width->as_integer(), 0)), ' ');
  }
  const bool first = given.boolean("first", false);
  const bool blank = given.boolean("blank", false);
  given.finish();
  const std::string text = to_text(machine, value) + "\n";
  const std::vector<std::string_view> lines = lines_of(text);
  machine.charge(lines.size() * (space.size() + 1) + text.size());
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 ? blank || !lines[i].empty() : first) out += space;
    out += lines[i];
  }
  return machine.text(std::move(out));
}

Value to_integer(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "int", arguments);
  const Value* otherwise = given.next("default");
  given.finish();
  const auto failed = [&] {
    return otherwise != nullptr ? *otherwise : Value::of(std::int64_t{0});
  };
  if (value.is_integer()) return Value::of(value.as_integer());
  if (value.is(Kind::kFloat)) {
    if (!(std::fabs(value.real) < 9e18)) machine.unsupported("an integer beyond 64 bits");
    return Value::of(static_cast<std::int64_t>(value.real));
  }
  if (value.is(Kind::kUndefined)) machine.raise("int of an undefined value");
  if (!value.is(Kind::kString)) return failed();
  std::string_view text = stripped(machine, *value.text, nullptr, true, true);
  if (text.find('_') != std::string_view::npos || !is_ascii(text)) {
    machine.unsupported("this number as text");
  }
  if (text.starts_with('+')) text.remove_prefix(1);
  const char* end = text.data() + text.size();
  std::int64_t integer = 0;
  const auto whole = std::from_chars(text.data(), end, integer);
  if (whole.ec == std::errc() && whole.ptr == end) return Value::of(integer);
  double real = 0.0;
  const auto read = std::from_chars(text.data(), end, real);
  if (read.ec != std::errc() || read.ptr != end || !(std::fabs(real) < 9e18)) return failed();
  return Value::of(static_cast<std::int64_t>(real));
}

Value to_real(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "float", arguments);
  const Value* otherwise = given.next("default");
  given.finish();
  if (value.is_number()) return Value::of(value.as_real());
  if (value.is(Kind::kUndefined)) machine.raise("float of an undefined value");
  if (value.is(Kind::kString)) {
    std::string_view text = stripped(machine, *value.text, nullptr, true, true);
    if (text.starts_with('+')) text.remove_prefix(1);
    double real = 0.0;
    const char* end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, real);
    if (read.ec == std::errc() && read.ptr == end) return Value::of(real);
  }
  return otherwise != nullptr ? *otherwise : Value::of(0.0);
}

Value reversed(Machine& machine, const Value& value) {
  if (value.is(Kind::kString)) {
    std::string out;
    for (std::size_t i = value.text->size(); i > 0;) {
      std::size_t last = i - 1;
      while (last > 0 && (static_cast<unsigned char>((*value.text)[last]) & 0xc0u) == 0x80u) --last;
      out.append(*value.text, last, i - last);
      i = last;
    }
    return machine.text(std::move(out));
  }
  std::vector<Value> items = items_of(machine, value);
  std::reverse(items.begin(), items.end());
  return machine.list(std::move(items), List::Form::kIterator);
}

Value edge(Machine& machine, const Value& value, bool first) {
  if (!first && value.is(Kind::kList) && value.list->form == List::Form::kIterator) {
    machine.raise("last of a generator");
  }
  const std::vector<Value> items = items_of(machine, value);
  if (items.empty()) return machine.undefined("no item, the sequence was empty");
  return first ? items.front() : items.back();
}

Value joined(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "join", arguments);
  const Value* separator = given.next("d");
  const std::string between = separator == nullptr ? "" : to_text(machine, *separator);
  const Value* name = given.next("attribute");
  given.finish();
  std::string out;
  bool first = true;
  for (Value part : items_of(machine, value)) {
    if (name != nullptr && !name->is(Kind::kNone)) part = item(machine, part, *name);
    const std::string piece = to_text(machine, part);
    machine.charge(piece.size() + between.size());
    if (!first) out += between;
    first = false;
    out += piece;
  }
  return machine.text(std::move(out));
}

// The title filter: words begin behind white space and - ( { [ <.
std::string titled(Machine& machine, std::string_view text) {
  std::string out = lower(machine, text);
  bool begins = true;
  for (char& c : out) {
    if (begins && c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    begins = std::string_view("-({[< \t\n\r\v\f").find(c) != std::string_view::npos;
  }
  return out;
}

// Filters on one value that take no arguments, and on its text; false: `name` is none of them.
bool plain_filter(Machine& machine, std::string_view name, const Value& value, Value& result) {
  if (name == "length" || name == "count") {
    result = Value::of(static_cast<std::int64_t>(length_of(machine, value)));
  } else if (name == "string") {
    result = value.is(Kind::kString) ? value : machine.text(to_text(machine, value));
  } else if (name == "list") {
    result = machine.list(items_of(machine, value));
  } else if (name == "upper") {
    result = machine.text(upper(machine, to_text(machine, value)));
  } else if (name == "lower") {
    result = machine.text(lower(machine, to_text(machine, value)));
  } else if (name == "capitalize") {
    result = machine.text(capitalized(machine, to_text(machine, value)));
  } else if (name == "title") {
    result = machine.text(titled(machine, to_text(machine, value)));
  } else if (name == "first" || name == "last") {
    result = edge(machine, value, name == "first");
  } else if (name == "reverse") {
    result = reversed(machine, value);
  } else if (name == "abs") {
    if (!value.is_number()) machine.raise(fmt::format("abs of a {}", type_name(value)));
    const Value zero = Value::of(std::int64_t{0});
    result =
        less(machine, value, zero) ? negative(machine, value) : binary(machine, "+", value, zero);
  } else if (name == "items") {
    std::vector<Value> items;
    if (value.is(Kind::kDict)) {
      for (const auto& [key, member] : value.dict->items) {
        items.push_back(machine.list({key, member}, List::Form::kTuple));
      }
    } else if (!value.is(Kind::kUndefined)) {
      machine.raise(fmt::format("items of a {}", type_name(value)));
    }
    result = machine.list(std::move(items), List::Form::kIterator);
  } else {
    return false;
  }
  return true;
}

}  // namespace

Value apply_filter(Machine& machine, std::string_view name, const Value& value,
                   const Arguments& arguments) {
  Value result;
  if (arguments.values.empty() && arguments.named.empty() &&
      plain_filter(machine, name, value, result)) {
    return result;
  }
  if (apply_sequence_filter(machine, name, value, arguments, result)) return result;
  if (name == "tojson") return to_json_filter(machine, value, arguments);
  if (name == "indent") return indented(machine, value, arguments);
  if (name == "int") return to_integer(machine, value, arguments);
  if (name == "float") return to_real(machine, value, arguments);
  if (name == "join") return joined(machine, value, arguments);
  Parameters given(machine, name, arguments);
  if (name == "trim") {
    const Value* characters = given.next("chars");
    given.finish();
    return machine.text(
        std::string(stripped(machine, to_text(machine, value), characters, true, true)));
  }
  if (name == "default" || name == "d") {
    const Value* otherwise = given.next("default_value");
    const bool falsy = given.boolean("boolean", false);
    given.finish();
    const bool replace = value.is(Kind::kUndefined) || (falsy && !truth(value));
    if (!replace) return value;
    return otherwise != nullptr ? *otherwise : machine.text("");
  }
  if (name == "replace") {
    const std::string from = to_text(machine, given.required("old"));
    const std::string to = to_text(machine, given.required("new"));
    const std::int64_t count = given.integer("count", -1);
    given.finish();
    return machine.text(replaced(machine, to_text(machine, value), from, to, count));
  }
  if (name == "attr") {
    const std::string member = given.text("name", "");
    given.finish();
    if (value.is(Kind::kDict)) machine.unsupported("attr of a dictionary");
    return attribute(machine, value, member);
  }
  if (name == "safe") machine.unsupported("'safe' inside an expression");
  Value plain;
  if (plain_filter(machine, name, value, plain)) {
    machine.unsupported(fmt::format("arguments of the filter '{}'", name));
  }
  if (name == "wordcount" || std::find(kOthers.begin(), kOthers.end(), name) != kOthers.end()) {
    machine.unsupported(fmt::format("the filter '{}'", name));
  }
  machine.raise(fmt::format("there is no filter '{}'", name));
}

}  // namespace ds::jinja
