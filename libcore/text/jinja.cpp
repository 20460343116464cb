#include "libcore/text/jinja.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/text/jinja_builtins.h"
#include "libcore/text/jinja_parser.h"

namespace ds {
namespace jinja {
namespace {

using Kind = Value::Kind;

// Of expressions, statements and macros in each other.
constexpr int kDepthLimit = 600;

enum class Flow { kOn, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(Machine& machine, const JinjaLimits& limits, Scope* globals)
      : machine_(machine), limits_(limits), scope_(globals) {}

  std::string run(const Block& block) {
    scope_ = machine_.scope(scope_);
    execute(block);
    return std::move(main_);
  }

 private:
  // Counts the depth while it lives.
  class Deeper {
   public:
    explicit Deeper(Interpreter& interpreter) : interpreter_(interpreter) {
      if (++interpreter.depth_ > kDepthLimit) {
        --interpreter.depth_;
        interpreter.machine_.limit(fmt::format("nesting deeper than {}", kDepthLimit));
      }
    }
    ~Deeper() { --interpreter_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Interpreter& interpreter_;
  };
  // Another scope, and another place for the output, until it ends.
  class Inside {
   public:
    Inside(Interpreter& interpreter, Scope* scope, std::string* out)
        : interpreter_(interpreter),
          scope_(std::exchange(interpreter.scope_, scope)),
          out_(std::exchange(interpreter.out_, out)) {}
    ~Inside() {
      interpreter_.scope_ = scope_;
      interpreter_.out_ = out_;
    }
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;

   private:
    Interpreter& interpreter_;
    Scope* scope_;
    std::string* out_;
  };

  void print(std::string_view text) {
    written_ += text.size();
    if (written_ > limits_.output) {
      machine_.limit(fmt::format("more than {} bytes of output", limits_.output));
    }
    *out_ += text;
  }

  const Value* look_up(std::string_view name) {
    for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
      machine_.step(scope->names.size() / 16);
      for (const auto& [key, value] : scope->names) {
        if (key == name) return &value;
      }
    }
    return nullptr;
  }
  void assign(std::string_view name, const Value& value) {
    machine_.step(scope_->names.size() / 16);
    for (auto& [key, old] : scope_->names) {
      if (key == name) {
        old = value;
        return;
      }
    }
    machine_.charge(sizeof(Value) * 2);
    scope_->names.emplace_back(name, value);
  }

  Flow execute(const Block& block) {
    const Deeper deeper(*this);
    for (const auto& statement : block.statements) {
      machine_.step();
      machine_.line = statement->line;
      const Flow flow = execute(*statement);
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  Flow execute(const Statement& statement) {
    using S = Statement::Kind;
    switch (statement.kind) {
      case S::kData:
        print(statement.text);
        return Flow::kOn;
      case S::kPrint: {
        // Without escaping, "safe" as the last filter changes nothing.
        const Expr& value = *statement.value;
        const bool safe = value.kind == Expr::Kind::kFilter && value.text == "safe";
        print(to_text(machine_, evaluate(safe ? *value.args[0] : value)));
        return Flow::kOn;
      }
      case S::kIf:
        for (const auto& [test, body] : statement.branches) {
          if (truth(evaluate(*test))) return execute(body);
        }
        return execute(statement.otherwise);
      case S::kFor:
        return loop(statement);
      case S::kSet:
        set(statement);
        return Flow::kOn;
      case S::kFilter:
        print(to_text(machine_, written(statement)));
        return Flow::kOn;
      case S::kMacro:
        assign(statement.text,
               machine_.callable({.macro = &statement, .scope = scope_, .name = statement.text}));
        return Flow::kOn;
      case S::kWith: {
        std::vector<Value> values;
        for (const auto& parameter : statement.parameters) {
          values.push_back(evaluate(*parameter.second));
        }
        const Inside inside(*this, machine_.scope(scope_), out_);
        for (std::size_t i = 0; i < values.size(); ++i) {
          assign(statement.parameters[i].first, values[i]);
        }
        return execute(statement.body);
      }
      case S::kScope: {
        const Inside inside(*this, machine_.scope(scope_), out_);
        return execute(statement.body);
      }
      case S::kBreak:
        return Flow::kBreak;
      case S::kContinue:
        return Flow::kContinue;
    }
    return Flow::kOn;
  }

  void bind(const Target& target, const Value& value) {
    if (!target.attribute.empty()) {
      const Value* space = look_up(target.names[0]);
      if (space == nullptr || !space->is(Kind::kNamespace)) {
        machine_.raise(fmt::format("'{}' is no namespace", target.names[0]));
      }
      auto& items = space->space->items;
      machine_.step(items.size() / 16);
      const auto at = std::find_if(items.begin(), items.end(), [&](const auto& item) {
        return item.first == target.attribute;
      });
      if (at != items.end()) {
        at->second = value;
      } else {
        machine_.charge(target.attribute.size() + sizeof(Value));
        items.emplace_back(target.attribute, value);
      }
      return;
    }
    if (!target.sequence) {
      assign(target.names[0], value);
      return;
    }
    const std::vector<Value> parts = items_of(machine_, value);
    if (parts.size() != target.names.size()) {
      machine_.raise(fmt::format("{} values for {} names", parts.size(), target.names.size()));
    }
    for (std::size_t i = 0; i < parts.size(); ++i) assign(target.names[i], parts[i]);
  }

  // What a block writes, through the statement's filters.
  Value written(const Statement& statement) {
    std::string body;
    {
      const Inside inside(*this, machine_.scope(scope_), &body);
      execute(statement.body);
    }
    const Value value = machine_.text(std::move(body));
    return statement.value ? filter(*statement.value, &value) : value;
  }

  void set(const Statement& statement) {
    bind(statement.target, statement.block_set ? written(statement) : evaluate(*statement.value));
  }

  Flow loop(const Statement& statement) {
    std::vector<Value> items = items_of(machine_, evaluate(*statement.value));
    if (statement.test) {
      std::vector<Value> kept;
      for (const Value& item : items) {
        const Inside inside(*this, machine_.scope(scope_), out_);
        bind(statement.target, item);
        if (truth(evaluate(*statement.test))) kept.push_back(item);
      }
      items = std::move(kept);
    }
    if (items.empty()) {
      const Inside inside(*this, machine_.scope(scope_), out_);
      return execute(statement.otherwise);
    }
    const Value all = machine_.list(std::move(items));
    const Value state = machine_.loop(all.list);
    for (std::size_t i = 0; i < all.list->items.size(); ++i) {
      state.loop->index = i;
      const Inside inside(*this, machine_.scope(scope_), out_);
      assign("loop", state);
      bind(statement.target, all.list->items[i]);
      machine_.step();
      if (execute(statement.body) == Flow::kBreak) break;
    }
    return Flow::kOn;
  }

  Value evaluate(const Expr& expr) {
    const Deeper deeper(*this);
    machine_.step();
    machine_.line = expr.line;
    const auto arg = [&](std::size_t i) { return evaluate(*expr.args[i]); };
    switch (expr.kind) {
      case Expr::Kind::kConst:
        return constant(expr);
      case Expr::Kind::kName:
        return name(expr);
      case Expr::Kind::kList:
      case Expr::Kind::kTuple: {
        std::vector<Value> items;
        for (std::size_t i = 0; i < expr.args.size(); ++i) items.push_back(arg(i));
        return machine_.list(std::move(items), expr.kind == Expr::Kind::kList ? List::Form::kList
                                                                              : List::Form::kTuple);
      }
      case Expr::Kind::kDict:
        return dictionary(expr);
      case Expr::Kind::kAttribute:
        return attribute(machine_, arg(0), expr.text);
      case Expr::Kind::kItem: {
        const Value whole = arg(0);
        return item(machine_, whole, arg(1));
      }
      case Expr::Kind::kSlice: {
        const Value whole = arg(0);
        const auto bound = [&](std::size_t i) { return expr.args[i] ? arg(i) : Value::none(); };
        const Value from = bound(1);
        const Value to = bound(2);
        return slice(machine_, whole, from, to, bound(3));
      }
      case Expr::Kind::kCall:
        return call(expr);
      case Expr::Kind::kFilter:
        return filter(expr, nullptr);
      case Expr::Kind::kTest: {
        const Value value = arg(0);
        const Arguments given = arguments(expr);
        machine_.line = expr.line;
        return Value::of(apply_test(machine_, expr.text, value, given));
      }
      case Expr::Kind::kNot:
        return Value::of(!truth(arg(0)));
      case Expr::Kind::kNegative:
        return negative(machine_, arg(0));
      case Expr::Kind::kPositive:
        return binary(machine_, "+", Value::of(std::int64_t{0}), arg(0));
      case Expr::Kind::kBinary: {
        const Value left = arg(0);
        if (expr.text == "and") return truth(left) ? arg(1) : left;
        if (expr.text == "or") return truth(left) ? left : arg(1);
        const Value right = arg(1);
        machine_.line = expr.line;
        return binary(machine_, expr.text, left, right);
      }
      case Expr::Kind::kConcat: {
        std::string out;
        for (std::size_t i = 0; i < expr.args.size(); ++i) {
          out += to_text(machine_, arg(i));
          machine_.charge(out.size());
        }
        return machine_.text(std::move(out));
      }
      case Expr::Kind::kCompare:
        return Value::of(compare(expr));
      case Expr::Kind::kChoice:
        if (truth(arg(1))) return arg(0);
        return expr.args[2] ? arg(2) : machine_.undefined("an 'if' without 'else' gave no value");
    }
    return {};
  }

  Value constant(const Expr& expr) {
    switch (expr.constant) {
      case Expr::Constant::kTrue:
        return Value::of(true);
      case Expr::Constant::kFalse:
        return Value::of(false);
      case Expr::Constant::kInteger:
        return Value::of(expr.integer);
      case Expr::Constant::kFloat:
        return Value::of(expr.real);
      case Expr::Constant::kString: {
        Value value;
        value.kind = Kind::kString;
        value.text = &expr.text;  // the tree outlives the rendering
        return value;
      }
      case Expr::Constant::kNone:
        break;
    }
    return Value::none();
  }

  Value name(const Expr& expr) {
    if (const Value* value = look_up(expr.text)) return *value;
    if (is_function(expr.text)) return machine_.callable({.name = expr.text});
    for (const char* special : {"self", "caller", "varargs", "kwargs"}) {
      if (expr.text == special) machine_.unsupported(fmt::format("the name '{}'", expr.text));
    }
    return machine_.undefined(fmt::format("'{}' is undefined", expr.text));
  }

  Value dictionary(const Expr& expr) {
    Value made = machine_.dict({});
    auto& items = made.dict->items;
    for (std::size_t i = 0; i + 1 < expr.args.size(); i += 2) {
      const Value key = evaluate(*expr.args[i]);
      const Value value = evaluate(*expr.args[i + 1]);
      if (key.is(Kind::kDict) || (key.is(Kind::kList) && key.list->form != List::Form::kTuple)) {
        machine_.raise(fmt::format("a {} is no key", type_name(key)));
      }
      const auto at = std::find_if(items.begin(), items.end(), [&](const auto& each) {
        return equal(machine_, each.first, key);
      });
      machine_.charge(2 * sizeof(Value));
      if (at != items.end()) {
        at->second = value;
      } else {
        items.emplace_back(key, value);
      }
    }
    return made;
  }

  Arguments arguments(const Expr& expr) {
    Arguments given;
    for (std::size_t i = 1; i < expr.args.size(); ++i) {
      given.values.push_back(evaluate(*expr.args[i]));
    }
    for (const auto& [key, value] : expr.named) given.named.emplace_back(key, evaluate(*value));
    return given;
  }

  // `value`: what a set block holds.
  Value filter(const Expr& expr, const Value* value) {
    const Deeper deeper(*this);
    Value input;
    if (expr.args[0]) {
      const Expr& inner = *expr.args[0];
      input = value != nullptr && inner.kind == Expr::Kind::kFilter ? filter(inner, value)
                                                                    : evaluate(inner);
    } else {
      input = *value;
    }
    const Arguments given = arguments(expr);
    machine_.line = expr.line;
    return apply_filter(machine_, expr.text, input, given);
  }

  bool compare(const Expr& expr) {
    Value left = evaluate(*expr.args[0]);
    for (std::size_t i = 0; i < expr.operators.size(); ++i) {
      const Value right = evaluate(*expr.args[i + 1]);
      machine_.line = expr.line;
      if (!holds(expr.operators[i], left, right)) return false;
      left = right;
    }
    return true;
  }
  bool holds(const std::string& op, const Value& a, const Value& b) {
    if (op == "==") return equal(machine_, a, b);
    if (op == "!=") return !equal(machine_, a, b);
    if (op == "<") return less(machine_, a, b);
    if (op == ">") return less(machine_, b, a);
    if (op == "<=") return less(machine_, a, b) || equal(machine_, a, b);
    if (op == ">=") return less(machine_, b, a) || equal(machine_, a, b);
    return contains(machine_, b, a) == (op == "in");
  }

  Value call(const Expr& expr) {
    const Value callee = evaluate(*expr.args[0]);
    const Arguments given = arguments(expr);
    machine_.line = expr.line;
    if (callee.is(Kind::kUndefined)) {
      machine_.raise(callee.text != nullptr ? *callee.text : "a call of an undefined value");
    }
    if (!callee.is(Kind::kCallable)) {
      machine_.raise(fmt::format("a {} cannot be called", type_name(callee)));
    }
    const Callable& callable = *callee.callable;
    if (callable.macro != nullptr) return call_macro(callable, given);
    if (callable.method) return call_method(machine_, callable, given);
    return call_function(machine_, callable.name, given);
  }

  Value call_macro(const Callable& callable, const Arguments& given) {
    const Deeper deeper(*this);
    const Statement& macro = *callable.macro;
    const std::string title = fmt::format("the macro {}", macro.text);
    Parameters parameters(machine_, title, given);
    std::string out;
    const int line = machine_.line;
    {
      const Inside inside(*this, machine_.scope(callable.scope), &out);
      for (const auto& [name, otherwise] : macro.parameters) {
        const Value* value = parameters.next(name);
        assign(name, value != nullptr ? *value
                     : otherwise      ? evaluate(*otherwise)
                                      : machine_.undefined(
                                            fmt::format("parameter '{}' was not provided", name)));
      }
      parameters.finish();
      execute(macro.body);
    }
    machine_.line = line;
    return machine_.text(std::move(out));
  }

  Machine& machine_;
  const JinjaLimits& limits_;
  Scope* scope_;
  std::string main_;
  std::string* out_ = &main_;
  std::size_t written_ = 0;
  int depth_ = 0;
};

}  // namespace
}  // namespace jinja

JinjaTemplate::JinjaTemplate(std::string_view text) {
  constexpr std::size_t kSizeLimit = std::size_t{1} << 20;
  if (text.size() > kSizeLimit) {
    throw JinjaError(JinjaProblem::kLimit, 1, fmt::format("more than {} bytes", kSizeLimit));
  }
  body_ = std::make_unique<const jinja::Block>(jinja::parse(text));
}
JinjaTemplate::~JinjaTemplate() = default;
JinjaTemplate::JinjaTemplate(JinjaTemplate&&) noexcept = default;
JinjaTemplate& JinjaTemplate::operator=(JinjaTemplate&&) noexcept = default;

std::string JinjaTemplate::render(const nlohmann::ordered_json& context,
                                  const JinjaLimits& limits) const {
  jinja::Machine machine(limits);
  jinja::Scope* globals = machine.scope(nullptr);
  for (const auto& [key, value] : context.items()) {
    globals->names.emplace_back(key, machine.from_json(value));
  }
  return jinja::Interpreter(machine, limits, globals).run(*body_);
}

}  // namespace ds
