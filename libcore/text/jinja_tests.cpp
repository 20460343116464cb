// "value is test".
#include <fmt/format.h>

#include "libcore/text/jinja_builtins.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

// Tests that compare with an argument; false: `name` is none of them.
bool comparison(Machine& machine, std::string_view name, const Value& value,
                const Arguments& arguments, bool& result) {
  const auto other = [&]() -> const Value& {
    Parameters given(machine, name, arguments);
    const Value& argument = given.required("other");
    given.finish();
    return argument;
  };
  if (name == "eq" || name == "equalto") {
    result = equal(machine, value, other());
  } else if (name == "ne") {
    result = !equal(machine, value, other());
  } else if (name == "lt" || name == "lessthan") {
    result = less(machine, value, other());
  } else if (name == "gt" || name == "greaterthan") {
    result = less(machine, other(), value);
  } else if (name == "le") {
    result = less(machine, value, other()) || equal(machine, value, other());
  } else if (name == "ge") {
    result = less(machine, other(), value) || equal(machine, value, other());
  } else if (name == "in") {
    result = contains(machine, other(), value);
  } else if (name == "divisibleby") {
    const Value rest = binary(machine, "%", value, other());
    result = !truth(rest);
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool apply_test(Machine& machine, std::string_view name, const Value& value,
                const Arguments& arguments) {
  bool result = false;
  if (comparison(machine, name, value, arguments, result)) return result;
  if (name == "sameas") {
    Parameters given(machine, name, arguments);
    const Value& other = given.required("other");
    if (value.kind != other.kind) return false;
    if (value.is(Kind::kNone)) return true;
    if (value.is(Kind::kBool)) return value.boolean == other.boolean;
    machine.unsupported("'sameas' of other than true, false and none");
  }
  if (!arguments.values.empty() || !arguments.named.empty()) {
    machine.unsupported(fmt::format("arguments of the test '{}'", name));
  }
  if (name == "defined") return !value.is(Kind::kUndefined);
  if (name == "undefined") return value.is(Kind::kUndefined);
  if (name == "none") return value.is(Kind::kNone);
  if (name == "string") return value.is(Kind::kString);
  if (name == "mapping") return value.is(Kind::kDict);
  if (name == "boolean") return value.is(Kind::kBool);
  if (name == "true") return value.is(Kind::kBool) && value.boolean;
  if (name == "false") return value.is(Kind::kBool) && !value.boolean;
  if (name == "integer") return value.is(Kind::kInteger);
  if (name == "float") return value.is(Kind::kFloat);
  if (name == "number") return value.is_number();
  if (name == "callable") return value.is(Kind::kCallable) || value.is(Kind::kUndefined);
  if (name == "iterable" || name == "sequence") {
    // jinja2's undefined value can be iterated and has items.
    if (value.is(Kind::kString) || value.is(Kind::kDict) || value.is(Kind::kUndefined)) return true;
    if (value.is(Kind::kLoop)) return name == "iterable";
    if (!value.is(Kind::kList)) return false;
    return name == "iterable" ||
           (value.list->form != List::Form::kView && value.list->form != List::Form::kIterator);
  }
  if (name == "even" || name == "odd") {
    const Value rest = binary(machine, "%", value, Value::of(std::int64_t{2}));
    return truth(rest) == (name == "odd");
  }
  if (name == "lower" || name == "upper") {
    const std::string text = to_text(machine, value);
    bool cased = false;
    for (const char c : text) cased = cased || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return cased && text == (name == "lower" ? lower(machine, text) : upper(machine, text));
  }
  if (name == "filter" || name == "test" || name == "escaped") {
    machine.unsupported(fmt::format("the test '{}'", name));
  }
  machine.raise(fmt::format("there is no test '{}'", name));
}

}  // namespace ds::jinja
