// A template as a tree.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace ds::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kConst,      // constant
    kName,       // text
    kList,       // args
    kTuple,      // args
    kDict,       // args: key, value, key, value, ...
    kAttribute,  // args[0].text
    kItem,       // args[0][args[1]]
    kSlice,      // args[0][args[1]:args[2]:args[3]], of which the last three may be null
    kCall,       // args[0](args[1...], named)
    kFilter,     // args[0] | text(args[1...], named); args[0] is null in a set block
    kTest,       // args[0] is text(args[1...], named)
    kNot,
    kNegative,
    kPositive,
    kBinary,   // args[0] text args[1]: + - * / // % ** and or
    kConcat,   // args joined as texts
    kCompare,  // args[0] operators[0] args[1] operators[1] args[2] ...
    kChoice,   // args[0] if args[1] else args[2], which may be null
  };
  enum class Constant { kNone, kTrue, kFalse, kString, kInteger, kFloat };

  Kind kind = Kind::kConst;
  Constant constant = Constant::kNone;
  int line = 1;
  int depth = 1;  // of the tree below, this node included
  std::int64_t integer = 0;
  double real = 0.0;
  std::string text;  // also the value of a text constant
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> operators;
};

struct Statement;
struct Block {
  std::vector<std::unique_ptr<Statement>> statements;
};

// What is assigned to: one name, names of a sequence, or an attribute of a namespace.
struct Target {
  std::vector<std::string> names;
  bool sequence = false;
  std::string attribute;  // not empty: names[0].attribute
};

struct Statement {
  enum class Kind {
    kData,    // text
    kPrint,   // value
    kIf,      // branches; otherwise
    kFor,     // target in value if test: body; otherwise
    kSet,     // target = value; or = body, through the filters of value when it is there
    kFilter,  // body, through the filters of value
    kMacro,   // text(parameters): body
    kWith,    // parameters: body
    kScope,   // body, of a generation block
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kData;
  int line = 1;
  std::string text;
  Target target;
  ExprPtr value;
  ExprPtr test;
  bool block_set = false;
  Block body;
  Block otherwise;
  bool has_otherwise = false;
  std::vector<std::pair<ExprPtr, Block>> branches;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // a default may be null
};

}  // namespace ds::jinja
