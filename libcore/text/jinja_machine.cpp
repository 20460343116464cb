#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/text/jinja_value.h"

namespace ds::jinja {
namespace {

using Kind = Value::Kind;

// Of a context given as JSON.
constexpr int kContextDepth = 60;

}  // namespace

Value Value::none() {
  Value value;
  value.kind = Kind::kNone;
  return value;
}
Value Value::of(bool boolean) {
  Value value;
  value.kind = Kind::kBool;
  value.boolean = boolean;
  return value;
}
Value Value::of(std::int64_t integer) {
  Value value;
  value.kind = Kind::kInteger;
  value.integer = integer;
  return value;
}
Value Value::of(double real) {
  Value value;
  value.kind = Kind::kFloat;
  value.real = real;
  return value;
}

void Machine::step(std::size_t count) {
  steps_ += static_cast<std::int64_t>(std::min<std::size_t>(count, std::size_t{1} << 40));
  if (steps_ > limits_.steps) limit(fmt::format("more than {} steps", limits_.steps));
}
void Machine::charge(std::size_t bytes) {
  bytes_ += bytes;
  if (bytes_ > limits_.bytes) limit(fmt::format("more than {} bytes of values", limits_.bytes));
}
void Machine::search(std::string_view text, std::string_view part) {
  step((text.size() / 64 + 1) * (part.size() / 64 + 1));
}

Value Machine::text(std::string text) {
  charge(sizeof(std::string) + text.size());
  Value value;
  value.kind = Kind::kString;
  value.text = &texts_.emplace_back(std::move(text));
  return value;
}
Value Machine::list(std::vector<Value> items, List::Form form) {
  charge(sizeof(List) + items.size() * sizeof(Value));
  List& list = lists_.emplace_back();
  list.form = form;
  list.items = std::move(items);
  Value value;
  value.kind = Kind::kList;
  value.list = &list;
  return value;
}
Value Machine::dict(std::vector<std::pair<Value, Value>> items) {
  charge(sizeof(Dict) + items.size() * 2 * sizeof(Value));
  Value value;
  value.kind = Kind::kDict;
  value.dict = &dicts_.emplace_back();
  value.dict->items = std::move(items);
  return value;
}
Value Machine::name_space() {
  charge(sizeof(Namespace));
  Value value;
  value.kind = Kind::kNamespace;
  value.space = &spaces_.emplace_back();
  return value;
}
Value Machine::callable(Callable callable) {
  charge(sizeof(Callable));
  Value value;
  value.kind = Kind::kCallable;
  value.callable = &callables_.emplace_back(std::move(callable));
  return value;
}
Value Machine::loop(List* items) {
  charge(sizeof(Loop));
  Value value;
  value.kind = Kind::kLoop;
  value.loop = &loops_.emplace_back();
  value.loop->items = items;
  return value;
}
Value Machine::undefined(const std::string& why) {
  Value value = text(why);
  value.kind = Kind::kUndefined;
  return value;
}
Scope* Machine::scope(Scope* parent) {
  charge(sizeof(Scope));
  Scope& scope = scopes_.emplace_back();
  scope.parent = parent;
  return &scope;
}

Value Machine::from_json(const nlohmann::ordered_json& json, int depth) {
  if (depth > kContextDepth) limit("values nested too deeply");
  if (json.is_string()) return text(json.get<std::string>());
  if (json.is_boolean()) return Value::of(json.get<bool>());
  if (json.is_number_integer()) return Value::of(json.get<std::int64_t>());
  if (json.is_number()) return Value::of(json.get<double>());
  if (json.is_array()) {
    std::vector<Value> items;
    for (const auto& member : json) items.push_back(from_json(member, depth + 1));
    return list(std::move(items));
  }
  if (json.is_object()) {
    std::vector<std::pair<Value, Value>> items;
    for (const auto& [key, member] : json.items()) {
      items.emplace_back(text(key), from_json(member, depth + 1));
    }
    return dict(std::move(items));
  }
  return Value::none();
}

void Machine::raise(const std::string& what) const {
  throw JinjaError(JinjaProblem::kRaised, line, what);
}
void Machine::unsupported(const std::string& what) const {
  throw JinjaError(JinjaProblem::kUnsupported, line, what);
}
void Machine::limit(const std::string& what) const {
  throw JinjaError(JinjaProblem::kLimit, line, what);
}

}  // namespace ds::jinja
