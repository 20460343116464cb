// Python's operators.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libcore/text/jinja_unicode.h"
#include "libcore/text/jinja_value.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

constexpr int kCompareDepth = 60;

[[noreturn]] void wrong_types(Machine& machine, std::string_view op, const Value& a,
                              const Value& b) {
  for (const Value* side : {&a, &b}) {
    if (!side->is(Kind::kUndefined)) continue;
    machine.raise(side->text != nullptr ? *side->text : "an undefined value");
  }
  machine.raise(
      fmt::format("{} {} {}: these types have no such operation", type_name(a), op, type_name(b)));
}

// A number among others that may be floating point.
double comparable(Machine& machine, const Value& value) {
  constexpr std::int64_t kExact = std::int64_t{1} << 53;
  if (value.is_integer() && (value.as_integer() > kExact || value.as_integer() < -kExact)) {
    machine.unsupported("a large integer compared with a floating-point number");
  }
  return value.as_real();
}

bool is_sequence(const Value& value) {
  return value.is(Kind::kList) &&
         (value.list->form == List::Form::kList || value.list->form == List::Form::kTuple);
}

Value repeated(Machine& machine, const Value& value, std::int64_t count) {
  const auto times = static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
  const std::size_t size = value.is(Kind::kString) ? value.text->size() : value.list->items.size();
  if (size > 0 && times > (std::size_t{1} << 24) / size)
    machine.limit("a value repeated too often");
  machine.charge(size * times);
  if (value.is(Kind::kString)) {
    std::string out;
    for (std::size_t i = 0; i < times; ++i) out += *value.text;
    return machine.text(std::move(out));
  }
  std::vector<Value> items;
  machine.charge(size * times * sizeof(Value));
  for (std::size_t i = 0; i < times; ++i) {
    items.insert(items.end(), value.list->items.begin(), value.list->items.end());
  }
  return machine.list(std::move(items), value.list->form);
}

Value integers(Machine& machine, std::string_view op, std::int64_t a, std::int64_t b) {
  std::int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    if (b < 0) return Value::of(std::pow(static_cast<double>(a), static_cast<double>(b)));
    out = 1;
    if (b > 64 && a != 0 && a != 1 && a != -1) overflow = true;
    for (std::int64_t i = 0; !overflow && i < (b > 64 ? b % 2 + 2 : b); ++i) {
      overflow = __builtin_mul_overflow(out, a, &out);
    }
  } else {
    if (b == 0) machine.raise("a division by zero");
    if (a == INT64_MIN && b == -1) {
      overflow = op == "//";
    } else {
      const std::int64_t rest = a % b;
      const bool other_side = rest != 0 && (rest < 0) != (b < 0);
      out = op == "//" ? a / b - (other_side ? 1 : 0) : rest + (other_side ? b : 0);
    }
  }
  if (overflow) machine.unsupported("an integer beyond 64 bits");
  return Value::of(out);
}

Value reals(Machine& machine, std::string_view op, double a, double b) {
  if (op == "+") return Value::of(a + b);
  if (op == "-") return Value::of(a - b);
  if (op == "*") return Value::of(a * b);
  if (op == "**") return Value::of(std::pow(a, b));
  if (b == 0.0) machine.raise("a division by zero");
  if (op == "/") return Value::of(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0.0 && (rest < 0) != (b < 0)) rest += b;
  return Value::of(op == "%" ? rest : std::floor((a - rest) / b + 0.5));
}

}  // namespace

Value binary(Machine& machine, std::string_view op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer() && op != "/") {
      return integers(machine, op, a.as_integer(), b.as_integer());
    }
    return reals(machine, op, a.as_real(), b.as_real());
  }
  if (op == "+") {
    if (a.is(Kind::kString) && b.is(Kind::kString)) {
      machine.charge(a.text->size() + b.text->size());
      return machine.text(*a.text + *b.text);
    }
    if (is_sequence(a) && is_sequence(b) && a.list->form == b.list->form) {
      machine.charge((a.list->items.size() + b.list->items.size()) * sizeof(Value));
      std::vector<Value> items = a.list->items;
      items.insert(items.end(), b.list->items.begin(), b.list->items.end());
      return machine.list(std::move(items), a.list->form);
    }
  }
  if (op == "*") {
    if ((a.is(Kind::kString) || is_sequence(a)) && b.is_integer()) {
      return repeated(machine, a, b.as_integer());
    }
    if ((b.is(Kind::kString) || is_sequence(b)) && a.is_integer()) {
      return repeated(machine, b, a.as_integer());
    }
  }
  if (op == "%" && a.is(Kind::kString)) machine.unsupported("a text with %");
  wrong_types(machine, op, a, b);
}

Value negative(Machine& machine, const Value& value) {
  if (value.is(Kind::kFloat)) return Value::of(-value.real);
  return binary(machine, "-", Value::of(std::int64_t{0}), value);
}

bool equal(Machine& machine, const Value& a, const Value& b, int depth) {
  if (depth > kCompareDepth) machine.limit("values nested too deeply");
  machine.step();
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.as_integer() == b.as_integer();
    return comparable(machine, a) == comparable(machine, b);
  }
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      machine.step(a.text->size() / 64);
      return *a.text == *b.text;
    case Kind::kList: {
      if (a.list == b.list) return true;
      if (a.list->form != b.list->form || !is_sequence(a)) return false;
      if (a.list->items.size() != b.list->items.size()) return false;
      for (std::size_t i = 0; i < a.list->items.size(); ++i) {
        if (!equal(machine, a.list->items[i], b.list->items[i], depth + 1)) return false;
      }
      return true;
    }
    case Kind::kDict: {
      if (a.dict == b.dict) return true;
      if (a.dict->items.size() != b.dict->items.size()) return false;
      return std::all_of(a.dict->items.begin(), a.dict->items.end(), [&](const auto& member) {
        const Value* other = find(machine, *b.dict, member.first);
        return other != nullptr && equal(machine, member.second, *other, depth + 1);
      });
    }
    default:
      return a.space == b.space;
  }
}

bool less(Machine& machine, const Value& a, const Value& b, int depth) {
  if (depth > kCompareDepth) machine.limit("values nested too deeply");
  machine.step();
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.as_integer() < b.as_integer();
    return comparable(machine, a) < comparable(machine, b);
  }
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    machine.step(a.text->size() / 64);
    return *a.text < *b.text;  // UTF-8 is ordered as code points are
  }
  if (is_sequence(a) && is_sequence(b) && a.list->form == b.list->form) {
    const auto& left = a.list->items;
    const auto& right = b.list->items;
    for (std::size_t i = 0; i < left.size() && i < right.size(); ++i) {
      if (!equal(machine, left[i], right[i], depth + 1)) {
        return less(machine, left[i], right[i], depth + 1);
      }
    }
    return left.size() < right.size();
  }
  wrong_types(machine, "<", a, b);
}

const Value* find(Machine& machine, const Dict& dict, const Value& key) {
  for (const auto& member : dict.items) {
    if (equal(machine, member.first, key)) return &member.second;
  }
  return nullptr;
}

bool contains(Machine& machine, const Value& whole, const Value& part) {
  switch (whole.kind) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!part.is(Kind::kString)) wrong_types(machine, "in", part, whole);
      machine.search(*whole.text, *part.text);
      return whole.text->find(*part.text) != std::string::npos;
    case Kind::kDict:
      if (part.is(Kind::kDict) || (part.is(Kind::kList) && part.list->form == List::Form::kList)) {
        machine.raise(fmt::format("a {} is no key", type_name(part)));
      }
      return find(machine, *whole.dict, part) != nullptr;
    case Kind::kList: {
      const std::vector<Value> items = items_of(machine, whole);
      return std::any_of(items.begin(), items.end(),
                         [&](const Value& each) { return equal(machine, each, part); });
    }
    default:
      machine.raise(fmt::format("'in' a {}", type_name(whole)));
  }
}

std::vector<Value> items_of(Machine& machine, const Value& value) {
  std::vector<Value> items;
  switch (value.kind) {
    case Kind::kUndefined:
      return items;
    case Kind::kString:
      machine.charge(value.text->size() * sizeof(Value));
      for (std::size_t i = 0; i < value.text->size();) {
        const std::size_t length = length_at(*value.text, i);
        items.push_back(machine.text(value.text->substr(i, length)));
        i += length;
      }
      return items;
    case Kind::kList:
      if (value.list->form == List::Form::kIterator) {
        if (value.list->used) machine.unsupported("a generator that is used twice");
        value.list->used = true;
      }
      machine.charge(value.list->items.size() * sizeof(Value));
      return value.list->items;
    case Kind::kDict:
      machine.charge(value.dict->items.size() * sizeof(Value));
      for (const auto& member : value.dict->items) items.push_back(member.first);
      return items;
    case Kind::kLoop:
      machine.unsupported("the loop itself in a loop");
    default:
      machine.raise(fmt::format("a {} cannot be iterated", type_name(value)));
  }
}

std::size_t length_of(Machine& machine, const Value& value) {
  switch (value.kind) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      machine.step(value.text->size() / 64);
      return code_points(*value.text);
    case Kind::kList:
      if (value.list->form == List::Form::kIterator) break;
      return value.list->items.size();
    case Kind::kDict:
      return value.dict->items.size();
    default:
      break;
  }
  machine.raise(fmt::format("a {} has no length", type_name(value)));
}

}  // namespace ds::jinja
