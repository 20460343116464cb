// Attributes, items and slices, as the sandbox gives them.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "libcore/text/jinja_unicode.h"
#include "libcore/text/jinja_value.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

constexpr std::array<std::string_view, 47> kTextMethods{
    "capitalize",   "casefold",    "center",    "count",      "encode",       "endswith",
    "expandtabs",   "find",        "format",    "format_map", "index",        "isalnum",
    "isalpha",      "isascii",     "isdecimal", "isdigit",    "isidentifier", "islower",
    "isnumeric",    "isprintable", "isspace",   "istitle",    "isupper",      "join",
    "ljust",        "lower",       "lstrip",    "maketrans",  "partition",    "removeprefix",
    "removesuffix", "replace",     "rfind",     "rindex",     "rjust",        "rpartition",
    "rsplit",       "rstrip",      "split",     "splitlines", "startswith",   "strip",
    "swapcase",     "title",       "translate", "upper",      "zfill"};
constexpr std::array<std::string_view, 6> kDictMethods{"items", "keys", "values",
                                                       "get",   "copy", "fromkeys"};
constexpr std::array<std::string_view, 5> kDictChanges{"clear", "pop", "popitem", "setdefault",
                                                       "update"};
constexpr std::array<std::string_view, 3> kListMethods{"index", "count", "copy"};
constexpr std::array<std::string_view, 8> kListChanges{"append", "clear",  "extend",  "insert",
                                                       "pop",    "remove", "reverse", "sort"};
constexpr std::array<std::string_view, 12> kNumberMembers{
    "real",      "imag",       "numerator", "denominator", "conjugate", "bit_length",
    "bit_count", "is_integer", "hex",       "fromhex",     "to_bytes",  "as_integer_ratio"};

template <class Names>
bool among(const Names& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value method(Machine& machine, const Value& self, const std::string& name) {
  return machine.callable({.method = true, .self = self, .name = name});
}

Value unsafe(Machine& machine, const Value& value, const std::string& name) {
  return machine.undefined(
      fmt::format("{} of a {} is not allowed in the sandbox", name, type_name(value)));
}

// A method or another attribute of the Python object; false when it has none of that name.
bool own_member(Machine& machine, const Value& value, const std::string& name, Value& member) {
  if (name.starts_with("__")) machine.unsupported(fmt::format("the attribute {}", name));
  switch (value.kind) {
    case Kind::kString:
      if (!among(kTextMethods, name)) return false;
      member = method(machine, value, name);
      return true;
    case Kind::kDict:
      if (among(kDictMethods, name)) {
        member = method(machine, value, name);
        return true;
      }
      if (!among(kDictChanges, name)) return false;
      member = unsafe(machine, value, name);
      return true;
    case Kind::kList: {
      const List::Form form = value.list->form;
      if (form == List::Form::kList && among(kListChanges, name)) {
        member = unsafe(machine, value, name);
        return true;
      }
      if (form == List::Form::kRange || form == List::Form::kView ||
          form == List::Form::kIterator) {
        machine.unsupported(fmt::format("the attribute {} of a {}", name, type_name(value)));
      }
      if (!among(kListMethods, name) || (form == List::Form::kTuple && name == "copy")) {
        return false;
      }
      member = method(machine, value, name);
      return true;
    }
    case Kind::kBool:
    case Kind::kInteger:
    case Kind::kFloat:
      if (among(kNumberMembers, name)) {
        machine.unsupported(fmt::format("the attribute {} of a number", name));
      }
      return false;
    case Kind::kCallable:
      machine.unsupported(fmt::format("the attribute {} of a function", name));
    default:
      return false;
  }
}

Value of_loop(Machine& machine, const Value& value, const std::string& name) {
  const Loop& loop = *value.loop;
  const auto size = static_cast<std::int64_t>(loop.items->items.size());
  const auto index = static_cast<std::int64_t>(loop.index);
  if (name == "index") return Value::of(index + 1);
  if (name == "index0") return Value::of(index);
  if (name == "revindex") return Value::of(size - index);
  if (name == "revindex0") return Value::of(size - index - 1);
  if (name == "first") return Value::of(index == 0);
  if (name == "last") return Value::of(index + 1 == size);
  if (name == "length") return Value::of(size);
  if (name == "depth") return Value::of(std::int64_t{1});
  if (name == "depth0") return Value::of(std::int64_t{0});
  if (name == "previtem") {
    return index > 0 ? loop.items->items[loop.index - 1]
                     : machine.undefined("there is no previous item");
  }
  if (name == "nextitem") {
    return index + 1 < size ? loop.items->items[loop.index + 1]
                            : machine.undefined("there is no next item");
  }
  if (name == "cycle" || name == "changed") return method(machine, value, name);
  return machine.undefined(fmt::format("a loop has no attribute '{}'", name));
}

void need_defined(Machine& machine, const Value& value) {
  if (!value.is(Kind::kUndefined)) return;
  machine.raise(value.text != nullptr ? *value.text : "an undefined value");
}

// Byte offsets of the code points of a text, and its end.
std::vector<std::size_t> offsets_of(Machine& machine, std::string_view text) {
  machine.step(text.size() / 8);
  std::vector<std::size_t> offsets;
  for (std::size_t i = 0; i < text.size(); i += length_at(text, i)) offsets.push_back(i);
  offsets.push_back(text.size());
  return offsets;
}

// value[index]; false: there is none.
bool by_index(Machine& machine, const Value& value, std::int64_t index, Value& found) {
  const bool text = value.is(Kind::kString);
  if (!text && (!value.is(Kind::kList) || value.list->form == List::Form::kView ||
                value.list->form == List::Form::kIterator)) {
    return false;
  }
  const auto size = static_cast<std::int64_t>(length_of(machine, value));
  if (index < 0) index += size;
  if (index < 0 || index >= size) return false;
  const auto at = static_cast<std::size_t>(index);
  if (text) {
    const auto offsets = offsets_of(machine, *value.text);
    found = machine.text(value.text->substr(offsets[at], offsets[at + 1] - offsets[at]));
  } else {
    found = value.list->items[at];
  }
  return true;
}

}  // namespace

Value attribute(Machine& machine, const Value& value, const std::string& name) {
  need_defined(machine, value);
  if (value.is(Kind::kLoop)) return of_loop(machine, value, name);
  if (value.is(Kind::kNamespace)) {
    machine.step(value.space->items.size() / 16);
    for (const auto& [key, member] : value.space->items) {
      if (key == name) return member;
    }
    return machine.undefined(fmt::format("the namespace has no attribute '{}'", name));
  }
  Value member;
  if (own_member(machine, value, name, member)) return member;
  if (value.is(Kind::kDict)) {
    const Value* found = find(machine, *value.dict, machine.text(name));
    if (found != nullptr) return *found;
  }
  return machine.undefined(fmt::format("a {} has no attribute '{}'", type_name(value), name));
}

Value item(Machine& machine, const Value& value, const Value& key) {
  need_defined(machine, value);
  if (value.is(Kind::kDict)) {
    const Value* found = find(machine, *value.dict, key);
    if (found != nullptr) return *found;
  } else if (key.is_integer()) {
    Value found;
    if (by_index(machine, value, key.as_integer(), found)) return found;
  }
  if (key.is(Kind::kString)) {
    if (value.is(Kind::kLoop) || value.is(Kind::kNamespace)) {
      return attribute(machine, value, *key.text);
    }
    Value member;
    if (own_member(machine, value, *key.text, member)) return member;
  }
  return machine.undefined(
      fmt::format("a {} has no item {}", type_name(value), representation(machine, key)));
}

Value slice(Machine& machine, const Value& value, const Value& from, const Value& to,
            const Value& step) {
  need_defined(machine, value);
  const bool text = value.is(Kind::kString);
  if (!text && value.is(Kind::kList) && value.list->form == List::Form::kRange) {
    machine.unsupported("a part of a range");
  }
  if (!text && (!value.is(Kind::kList) || value.list->form == List::Form::kView ||
                value.list->form == List::Form::kIterator)) {
    machine.raise(fmt::format("a {} has no parts", type_name(value)));
  }
  for (const Value* bound : {&from, &to, &step}) {
    need_defined(machine, *bound);
    if (!bound->is_integer() && !bound->is(Kind::kNone)) {
      machine.raise(fmt::format("a {} as bound of a part", type_name(*bound)));
    }
  }
  const auto size = static_cast<std::int64_t>(length_of(machine, value));
  const std::int64_t stride = step.is(Kind::kNone) ? 1 : step.as_integer();
  if (stride == 0) machine.raise("a step of 0");
  const auto place = [&](const Value& bound, std::int64_t without) {
    if (bound.is(Kind::kNone)) return without;
    std::int64_t at = bound.as_integer();
    if (at < 0) at = at < -size ? -1 : at + size;
    if (stride > 0) return std::clamp<std::int64_t>(at, 0, size);
    return std::clamp<std::int64_t>(at, -1, size - 1);
  };
  const std::int64_t begin = place(from, stride > 0 ? 0 : size - 1);
  const std::int64_t end = place(to, stride > 0 ? size : -1);
  const std::vector<std::size_t> offsets =
      text ? offsets_of(machine, *value.text) : std::vector<std::size_t>();
  std::string out;
  std::vector<Value> items;
  for (std::int64_t i = begin; stride > 0 ? i < end : i > end;) {
    machine.step();
    const auto at = static_cast<std::size_t>(i);
    if (text) {
      out.append(*value.text, offsets[at], offsets[at + 1] - offsets[at]);
    } else {
      items.push_back(value.list->items[at]);
    }
    if (__builtin_add_overflow(i, stride, &i)) break;
  }
  return text ? machine.text(std::move(out)) : machine.list(std::move(items), value.list->form);
}

}  // namespace ds::jinja
