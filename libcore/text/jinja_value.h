// What a template computes with, and the machine that owns it while rendering.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libcore/text/jinja.h"
#include "libcore/text/jinja_tree.h"

namespace ds::jinja {

struct List;
struct Dict;
struct Namespace;
struct Callable;
struct Loop;
struct Scope;

// A handle; what it points to belongs to the machine and lives until the rendering ends, so that
// values may refer to each other freely.
struct Value {
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInteger,
    kFloat,
    kString,
    kList,
    kDict,
    kNamespace,
    kCallable,
    kLoop,
  };
  Kind kind = Kind::kUndefined;
  union {
    bool boolean;
    std::int64_t integer;
    double real;
    const std::string* text;  // kString; kUndefined: why it is, or null
    List* list;
    Dict* dict;
    Namespace* space;
    Callable* callable;
    Loop* loop;
  };

  Value() : text(nullptr) {}
  static Value none();
  static Value of(bool value);
  static Value of(std::int64_t value);
  static Value of(double value);
  bool is(Kind wanted) const { return kind == wanted; }
  // True and false are numbers too.
  bool is_integer() const { return kind == Kind::kInteger || kind == Kind::kBool; }
  bool is_number() const { return is_integer() || kind == Kind::kFloat; }
  std::int64_t as_integer() const { return kind == Kind::kBool ? (boolean ? 1 : 0) : integer; }
  double as_real() const { return kind == Kind::kFloat ? real : static_cast<double>(as_integer()); }
};

struct List {
  enum class Form {
    kList,
    kTuple,
    kRange,
    kView,      // of a dictionary
    kIterator,  // of a filter such as map: has no length, and is empty the second time
  };
  Form form = Form::kList;
  bool used = false;  // kIterator
  std::vector<Value> items;
};

struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in the order they were added
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

struct Callable {
  const Statement* macro = nullptr;  // else a method of `self`, or a function without one
  Scope* scope = nullptr;            // where the macro was written
  bool method = false;
  Value self;
  std::string name;
};

struct Loop {
  List* items = nullptr;
  std::size_t index = 0;
  bool asked = false;  // loop.changed
  std::vector<Value> last;
};

struct Scope {
  Scope* parent = nullptr;
  std::vector<std::pair<std::string_view, Value>> names;
};

struct Arguments {
  std::vector<Value> values;
  std::vector<std::pair<std::string_view, Value>> named;
};

// Owns values, counts what they cost, and throws the errors.
class Machine {
 public:
  explicit Machine(const JinjaLimits& limits) : limits_(limits) {}

  int line = 1;  // of what is being evaluated

  void step(std::size_t count = 1);
  void charge(std::size_t bytes);
  // The cost of looking for `part` in `text`.
  void search(std::string_view text, std::string_view part);

  Value text(std::string text);
  Value list(std::vector<Value> items, List::Form form = List::Form::kList);
  Value dict(std::vector<std::pair<Value, Value>> items);
  Value name_space();
  Value callable(Callable callable);
  Value loop(List* items);
  Value undefined(const std::string& why);
  Scope* scope(Scope* parent);
  Value from_json(const nlohmann::ordered_json& json, int depth = 0);

  [[noreturn]] void raise(const std::string& what) const;
  [[noreturn]] void unsupported(const std::string& what) const;
  [[noreturn]] void limit(const std::string& what) const;

 private:
  JinjaLimits limits_;
  std::int64_t steps_ = 0;
  std::size_t bytes_ = 0;
  std::deque<std::string> texts_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Namespace> spaces_;
  std::deque<Callable> callables_;
  std::deque<Loop> loops_;
  std::deque<Scope> scopes_;
};

// Python's name of the type, for messages: "str", "NoneType", ...
std::string_view type_name(const Value& value);

bool truth(const Value& value);
std::string to_text(Machine& machine, const Value& value);         // str()
std::string representation(Machine& machine, const Value& value);  // repr()
bool equal(Machine& machine, const Value& a, const Value& b, int depth = 0);
bool less(Machine& machine, const Value& a, const Value& b, int depth = 0);
bool contains(Machine& machine, const Value& whole, const Value& part);  // part in whole
// The items; raises for what cannot be iterated.
std::vector<Value> items_of(Machine& machine, const Value& value);
std::size_t length_of(Machine& machine, const Value& value);
const Value* find(Machine& machine, const Dict& dict, const Value& key);

struct JsonStyle {
  std::string indent;  // one level's; with `lines`
  bool lines = false;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool ensure_ascii = false;
  bool sort_keys = false;
};
std::string to_json(Machine& machine, const Value& value, const JsonStyle& style);

Value binary(Machine& machine, std::string_view op, const Value& a, const Value& b);
Value negative(Machine& machine, const Value& value);

Value attribute(Machine& machine, const Value& value, const std::string& name);  // value.name
Value item(Machine& machine, const Value& value, const Value& key);              // value[key]
Value slice(Machine& machine, const Value& value, const Value& from, const Value& to,
            const Value& step);

// Texts in which upper and lower case are a matter of a-z alone; others are unsupported.
void need_plain_case(Machine& machine, std::string_view text);
std::string upper(Machine& machine, std::string_view text);
std::string lower(Machine& machine, std::string_view text);
std::string capitalized(Machine& machine, std::string_view text);
std::vector<std::string_view> lines_of(std::string_view text);  // str.splitlines()
std::string_view stripped(Machine& machine, std::string_view text, const Value* characters,
                          bool left, bool right);
std::string replaced(Machine& machine, std::string_view text, std::string_view from,
                     std::string_view to, std::int64_t count);

}  // namespace ds::jinja
