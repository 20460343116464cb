// Arguments, methods of lists, dictionaries and loops, and global functions.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "libcore/text/jinja_builtins.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

// jinja2's own limit in the sandbox.
constexpr std::int64_t kRangeLimit = 100'000;

constexpr std::array<std::string_view, 8> kFunctions{
    "range", "dict", "namespace", "raise_exception", "strftime_now", "cycler", "joiner", "lipsum"};

Value range(Machine& machine, const Arguments& arguments) {
  if (arguments.values.empty() || arguments.values.size() > 3 || !arguments.named.empty()) {
    machine.raise("range needs one to three numbers");
  }
  std::vector<std::int64_t> numbers;
  for (const Value& value : arguments.values) {
    if (!value.is_integer()) machine.raise(fmt::format("range of a {}", type_name(value)));
    numbers.push_back(value.as_integer());
  }
  const std::int64_t begin = numbers.size() == 1 ? 0 : numbers[0];
  const std::int64_t end = numbers.size() == 1 ? numbers[0] : numbers[1];
  const std::int64_t step = numbers.size() == 3 ? numbers[2] : 1;
  if (step == 0) machine.raise("range with a step of 0");
  std::vector<Value> items;
  for (std::int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<std::int64_t>(items.size()) >= kRangeLimit) {
      machine.raise(fmt::format("range of more than {} numbers", kRangeLimit));
    }
    items.push_back(Value::of(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  machine.step(items.size());
  return machine.list(std::move(items), List::Form::kRange);
}

// A fixed moment stands for now: 2025-01-02 03:04:05.
Value strftime_now(Machine& machine, const Arguments& arguments) {
  Parameters given(machine, "strftime_now", arguments);
  const std::string format = given.text("format", "");
  given.finish();
  std::string out;
  for (std::size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    constexpr std::string_view kLetters = "YymdHMSBbAajp%";
    constexpr std::array<std::string_view, 14> kTexts{"2025", "25",  "01",      "02",  "03",
                                                      "04",   "05",  "January", "Jan", "Thursday",
                                                      "Thu",  "002", "AM",      "%"};
    const std::size_t at =
        i + 1 < format.size() ? kLetters.find(format[i + 1]) : std::string_view::npos;
    if (at == std::string_view::npos) machine.unsupported("this format of a date");
    out += kTexts[at];
    ++i;
  }
  return machine.text(std::move(out));
}

Value name_space(Machine& machine, const Arguments& arguments) {
  Value value = machine.name_space();
  auto& items = value.space->items;
  const auto put = [&](const std::string& key, const Value& member) {
    machine.charge(key.size() + sizeof(Value));
    for (auto& item : items) {
      if (item.first == key) {
        item.second = member;
        return;
      }
    }
    items.emplace_back(key, member);
  };
  for (const Value& given : arguments.values) {
    if (!given.is(Kind::kDict)) machine.unsupported("a namespace of other than names and values");
    for (const auto& [key, member] : given.dict->items) {
      if (key.is(Kind::kString)) put(*key.text, member);
    }
  }
  for (const auto& [key, member] : arguments.named) put(std::string(key), member);
  return value;
}

Value dict(Machine& machine, const Arguments& arguments) {
  std::vector<std::pair<Value, Value>> items;
  if (arguments.values.size() > 1) machine.raise("dict with several values");
  for (const Value& given : arguments.values) {
    if (!given.is(Kind::kDict)) machine.unsupported("dict() of other than a dictionary");
    items = given.dict->items;
  }
  Value value = machine.dict(std::move(items));
  for (const auto& [key, member] : arguments.named) {
    const Value name = machine.text(std::string(key));
    auto& all = value.dict->items;
    const auto at = std::find_if(
        all.begin(), all.end(), [&](const auto& each) { return equal(machine, each.first, name); });
    if (at != all.end()) {
      at->second = member;
    } else {
      all.emplace_back(name, member);
    }
  }
  return value;
}

Value call_dict_method(Machine& machine, const Callable& method, const Arguments& arguments) {
  const Dict& dict = *method.self.dict;
  const std::string& name = method.name;
  Parameters given(machine, name, arguments);
  if (name == "get") {
    const Value key = given.required("key");
    const Value* otherwise = given.next("default");
    given.finish();
    const Value* found = find(machine, dict, key);
    return found != nullptr ? *found : otherwise != nullptr ? *otherwise : Value::none();
  }
  if (name == "copy") {
    given.finish();
    return machine.dict(dict.items);
  }
  if (name != "items" && name != "keys" && name != "values") {
    machine.unsupported(fmt::format("the method {} of a dictionary", name));
  }
  given.finish();
  std::vector<Value> items;
  for (const auto& [key, member] : dict.items) {
    items.push_back(name == "keys"     ? key
                    : name == "values" ? member
                                       : machine.list({key, member}, List::Form::kTuple));
  }
  return machine.list(std::move(items), List::Form::kView);
}

Value call_list_method(Machine& machine, const Callable& method, const Arguments& arguments) {
  const List& list = *method.self.list;
  Parameters given(machine, method.name, arguments);
  if (method.name == "copy") {
    given.finish();
    return machine.list(list.items, list.form);
  }
  const Value part = given.required("value");
  given.finish();
  std::int64_t count = 0;
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (!equal(machine, list.items[i], part)) continue;
    if (method.name == "index") return Value::of(static_cast<std::int64_t>(i));
    ++count;
  }
  if (method.name == "index") machine.raise("index: the value is not there");
  return Value::of(count);
}

Value call_loop_method(Machine& machine, const Callable& method, const Arguments& arguments) {
  Loop& loop = *method.self.loop;
  if (method.name == "cycle") {
    if (arguments.values.empty()) machine.raise("cycle without values");
    return arguments.values[loop.index % arguments.values.size()];
  }
  bool same = loop.asked && loop.last.size() == arguments.values.size();
  for (std::size_t i = 0; same && i < loop.last.size(); ++i) {
    same = equal(machine, loop.last[i], arguments.values[i]);
  }
  loop.asked = true;
  if (!same) loop.last = arguments.values;
  return Value::of(!same);
}

}  // namespace

Parameters::Parameters(Machine& machine, std::string_view what, const Arguments& arguments)
    : machine_(machine), what_(what), arguments_(arguments) {}

const Value* Parameters::next(std::string_view name) {
  const std::size_t place = place_++;
  if (place < arguments_.values.size()) {
    ++taken_;
    return &arguments_.values[place];
  }
  for (const auto& [key, value] : arguments_.named) {
    if (key != name) continue;
    ++taken_;
    return &value;
  }
  return nullptr;
}

const Value& Parameters::required(std::string_view name) {
  const Value* value = next(name);
  if (value == nullptr) machine_.raise(fmt::format("{} needs '{}'", what_, name));
  return *value;
}

std::int64_t Parameters::integer(std::string_view name, std::int64_t otherwise) {
  const Value* value = next(name);
  if (value == nullptr || value->is(Kind::kNone)) return otherwise;
  if (!value->is_integer()) {
    machine_.raise(fmt::format("{}: '{}' is a {}", what_, name, type_name(*value)));
  }
  return value->as_integer();
}

bool Parameters::boolean(std::string_view name, bool otherwise) {
  const Value* value = next(name);
  return value == nullptr ? otherwise : truth(*value);
}

std::string Parameters::text(std::string_view name, std::string_view otherwise) {
  const Value* value = next(name);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is(Kind::kString)) {
    machine_.raise(fmt::format("{}: '{}' is a {}", what_, name, type_name(*value)));
  }
  return *value->text;
}

void Parameters::finish() {
  if (taken_ == arguments_.values.size() + arguments_.named.size()) return;
  machine_.unsupported(fmt::format("these arguments of {}", what_));
}

Value call_method(Machine& machine, const Callable& method, const Arguments& arguments) {
  switch (method.self.kind) {
    case Kind::kString:
      return call_text_method(machine, method, arguments);
    case Kind::kDict:
      return call_dict_method(machine, method, arguments);
    case Kind::kLoop:
      return call_loop_method(machine, method, arguments);
    default:
      return call_list_method(machine, method, arguments);
  }
}

bool is_function(std::string_view name) {
  return std::find(kFunctions.begin(), kFunctions.end(), name) != kFunctions.end();
}

Value call_function(Machine& machine, std::string_view name, const Arguments& arguments) {
  if (name == "range") return range(machine, arguments);
  if (name == "dict") return dict(machine, arguments);
  if (name == "namespace") return name_space(machine, arguments);
  if (name == "strftime_now") return strftime_now(machine, arguments);
  if (name == "raise_exception") {
    Parameters given(machine, name, arguments);
    machine.raise(to_text(machine, given.required("message")));
  }
  machine.unsupported(fmt::format("the function {}", name));
}

}  // namespace ds::jinja
