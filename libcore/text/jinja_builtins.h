// Functions, methods, filters and tests.
#pragma once

#include <string>
#include <string_view>

#include "libcore/text/jinja_value.h"

namespace ds::jinja {

// What a call gave, taken one by one: by place or by name. finish() raises when something is left.
class Parameters {
 public:
  Parameters(Machine& machine, std::string_view what, const Arguments& arguments);

  // nullptr: not given.
  const Value* next(std::string_view name);
  const Value& required(std::string_view name);
  std::int64_t integer(std::string_view name, std::int64_t otherwise);
  bool boolean(std::string_view name, bool otherwise);
  std::string text(std::string_view name, std::string_view otherwise);
  void finish();

 private:
  Machine& machine_;
  std::string_view what_;
  const Arguments& arguments_;
  std::size_t place_ = 0;
  std::size_t taken_ = 0;
};

Value call_method(Machine& machine, const Callable& method, const Arguments& arguments);
Value call_text_method(Machine& machine, const Callable& method, const Arguments& arguments);
// A global function: range, dict, namespace, raise_exception, strftime_now.
bool is_function(std::string_view name);
Value call_function(Machine& machine, std::string_view name, const Arguments& arguments);
Value apply_filter(Machine& machine, std::string_view name, const Value& value,
                   const Arguments& arguments);
// The filters that go through a sequence (map, select, ...); false: `name` is none of them.
bool apply_sequence_filter(Machine& machine, std::string_view name, const Value& value,
                           const Arguments& arguments, Value& result);
bool apply_test(Machine& machine, std::string_view name, const Value& value,
                const Arguments& arguments);

}  // namespace ds::jinja
