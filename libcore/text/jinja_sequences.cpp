// Filters that go through a sequence.
#include <fmt/format.h>

#include <algorithm>

#include "libcore/text/jinja_builtins.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

// value.a.b for "a.b"; numbers are items.
Value by_path(Machine& machine, Value value, const Value& path) {
  if (path.is_integer()) return item(machine, value, path);
  if (!path.is(Kind::kString)) machine.raise("an attribute's name that is no text");
  std::string_view rest = *path.text;
  while (true) {
    const std::size_t dot = rest.find('.');
    const std::string name(rest.substr(0, dot));
    const bool number = !name.empty() && name.find_first_not_of("0123456789") == std::string::npos;
    if (number && name.size() > 9) machine.unsupported("this number of an item");
    value = item(machine, value,
                 number ? Value::of(std::int64_t{std::stoi(name)}) : machine.text(name));
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

Arguments after(const Arguments& arguments, std::size_t count) {
  Arguments rest;
  for (std::size_t i = count; i < arguments.values.size(); ++i) {
    rest.values.push_back(arguments.values[i]);
  }
  rest.named = arguments.named;
  return rest;
}

Value mapped(Machine& machine, const Value& value, const Arguments& arguments) {
  std::vector<Value> items;
  if (arguments.values.empty()) {
    Parameters given(machine, "map", arguments);
    const Value* path = nullptr;
    const Value* otherwise = nullptr;
    for (const auto& [key, member] : arguments.named) {
      if (key == "attribute") path = &member;
      if (key == "default") otherwise = &member;
    }
    if (path == nullptr || arguments.named.size() != (otherwise != nullptr ? 2u : 1u)) {
      machine.unsupported("these arguments of map");
    }
    for (const Value& each : items_of(machine, value)) {
      Value found = by_path(machine, each, *path);
      if (found.is(Kind::kUndefined) && otherwise != nullptr) found = *otherwise;
      items.push_back(found);
    }
  } else {
    const Value& name = arguments.values[0];
    if (!name.is(Kind::kString)) machine.raise("map needs the name of a filter");
    const Arguments rest = after(arguments, 1);
    for (const Value& each : items_of(machine, value)) {
      items.push_back(apply_filter(machine, *name.text, each, rest));
    }
  }
  return machine.list(std::move(items), List::Form::kIterator);
}

// select, reject, selectattr, rejectattr
Value chosen(Machine& machine, std::string_view name, const Value& value,
             const Arguments& arguments) {
  const bool by_attribute = name.ends_with("attr");
  const bool keep = name.starts_with("select");
  if (by_attribute && arguments.values.empty()) machine.raise("selectattr needs an attribute");
  const std::size_t place = by_attribute ? 1 : 0;
  const bool tests = arguments.values.size() > place;
  if (tests && !arguments.values[place].is(Kind::kString)) {
    machine.raise("the name of a test is no text");
  }
  const Arguments rest = after(arguments, place + 1);
  std::vector<Value> items;
  for (const Value& each : items_of(machine, value)) {
    const Value tested = by_attribute ? by_path(machine, each, arguments.values[0]) : each;
    std::string test = tests ? *arguments.values[place].text : "";
    // The operators are names of tests too.
    for (const auto& [sign, word] : {std::pair{"==", "eq"},
                                     {"!=", "ne"},
                                     {"<", "lt"},
                                     {">", "gt"},
                                     {"<=", "le"},
                                     {">=", "ge"}}) {
      if (test == sign) test = word;
    }
    const bool holds = tests ? apply_test(machine, test, tested, rest) : truth(tested);
    if (holds == keep) items.push_back(each);
  }
  return machine.list(std::move(items), List::Form::kIterator);
}

// What sorting and comparing goes by: an attribute, texts without their case.
class Keys {
 public:
  Keys(Machine& machine, const Value* attribute, bool case_sensitive)
      : machine_(machine), attribute_(attribute), case_sensitive_(case_sensitive) {}

  Value of(const Value& value) const {
    const Value key = attribute_ == nullptr || attribute_->is(Kind::kNone)
                          ? value
                          : by_path(machine_, value, *attribute_);
    return key.is(Kind::kString) && !case_sensitive_ ? machine_.text(lower(machine_, *key.text))
                                                     : key;
  }
  // Sorts, equal ones in their order. Keys that are equal are not ordered, as in lists of them.
  std::vector<Value> sorted(const std::vector<Value>& items, bool reverse) const {
    std::vector<std::pair<Value, Value>> keyed;
    for (const Value& each : items) keyed.emplace_back(of(each), each);
    std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
      if (equal(machine_, a.first, b.first)) return false;
      return reverse ? less(machine_, b.first, a.first) : less(machine_, a.first, b.first);
    });
    std::vector<Value> out;
    for (const auto& each : keyed) out.push_back(each.second);
    return out;
  }

 private:
  Machine& machine_;
  const Value* attribute_;
  bool case_sensitive_;
};

Value sorted(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "sort", arguments);
  const bool reverse = given.boolean("reverse", false);
  const bool cases = given.boolean("case_sensitive", false);
  const Value* attribute = given.next("attribute");
  given.finish();
  if (attribute != nullptr && attribute->is(Kind::kString) &&
      attribute->text->find(',') != std::string::npos) {
    machine.unsupported("sort by several attributes");
  }
  return machine.list(Keys(machine, attribute, cases).sorted(items_of(machine, value), reverse));
}

Value dict_sorted(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "dictsort", arguments);
  const bool cases = given.boolean("case_sensitive", false);
  const std::string by = given.text("by", "key");
  const bool reverse = given.boolean("reverse", false);
  given.finish();
  if (!value.is(Kind::kDict)) machine.raise(fmt::format("dictsort of a {}", type_name(value)));
  if (by != "key" && by != "value") machine.raise("dictsort by other than key and value");
  std::vector<Value> items;
  for (const auto& [key, member] : value.dict->items) {
    items.push_back(machine.list({key, member}, List::Form::kTuple));
  }
  const Value place = Value::of(std::int64_t{by == "key" ? 0 : 1});
  return machine.list(Keys(machine, &place, cases).sorted(items, reverse));
}

Value unique(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "unique", arguments);
  const bool cases = given.boolean("case_sensitive", false);
  const Value* attribute = given.next("attribute");
  given.finish();
  const Keys keys(machine, attribute, cases);
  std::vector<Value> seen;
  std::vector<Value> items;
  for (const Value& each : items_of(machine, value)) {
    const Value key = keys.of(each);
    const bool known = std::any_of(seen.begin(), seen.end(),
                                   [&](const Value& other) { return equal(machine, key, other); });
    if (known) continue;
    seen.push_back(key);
    items.push_back(each);
  }
  return machine.list(std::move(items), List::Form::kIterator);
}

Value extreme(Machine& machine, std::string_view name, const Value& value,
              const Arguments& arguments) {
  Parameters given(machine, name, arguments);
  const bool cases = given.boolean("case_sensitive", false);
  const Value* attribute = given.next("attribute");
  given.finish();
  const Keys keys(machine, attribute, cases);
  const std::vector<Value> items = items_of(machine, value);
  if (items.empty()) return machine.undefined("no item, the sequence was empty");
  Value best = items[0];
  for (const Value& each : items) {
    const Value mine = keys.of(each);
    const Value theirs = keys.of(best);
    if (name == "min" ? less(machine, mine, theirs) : less(machine, theirs, mine)) best = each;
  }
  return best;
}

Value sum(Machine& machine, const Value& value, const Arguments& arguments) {
  Parameters given(machine, "sum", arguments);
  const Value* attribute = given.next("attribute");
  const Value* start = given.next("start");
  given.finish();
  Value total = start != nullptr ? *start : Value::of(std::int64_t{0});
  for (const Value& each : items_of(machine, value)) {
    const Value part = attribute == nullptr || attribute->is(Kind::kNone)
                           ? each
                           : by_path(machine, each, *attribute);
    if (part.is(Kind::kString)) machine.raise("sum of texts");
    total = binary(machine, "+", total, part);
  }
  return total;
}

}  // namespace

bool apply_sequence_filter(Machine& machine, std::string_view name, const Value& value,
                           const Arguments& arguments, Value& result) {
  if (name == "map") {
    result = mapped(machine, value, arguments);
  } else if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr") {
    result = chosen(machine, name, value, arguments);
  } else if (name == "sort") {
    result = sorted(machine, value, arguments);
  } else if (name == "dictsort") {
    result = dict_sorted(machine, value, arguments);
  } else if (name == "unique") {
    result = unique(machine, value, arguments);
  } else if (name == "min" || name == "max") {
    result = extreme(machine, name, value, arguments);
  } else if (name == "sum") {
    result = sum(machine, value, arguments);
  } else {
    return false;
  }
  return true;
}

}  // namespace ds::jinja
