#include "libcore/text/jinja_expressions.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace ds::jinja {

namespace {

using Kind = Token::Kind;

constexpr int kNestingLimit = 60;
constexpr int kDepthLimit = 200;

}  // namespace

void TokenStream::fail(const std::string& what, JinjaProblem problem) {
  throw JinjaError(problem, peek().line, what);
}

void TokenStream::unexpected(std::string_view needed) {
  const Token& token = peek();
  const std::string found = token.kind == Kind::kEnd          ? "the end of the template"
                            : token.kind == Kind::kBlockEnd   ? "'%}'"
                            : token.kind == Kind::kPrintEnd   ? "'}}'"
                            : token.kind == Kind::kBlockBegin ? "'{%'"
                            : token.kind == Kind::kPrintBegin ? "'{{'"
                                                              : fmt::format("'{}'", token.text);
  fail(fmt::format("found {}, {} is needed", found, needed));
}

void TokenStream::need(Token::Kind kind, std::string_view text) {
  if (peek().kind != kind) unexpected(fmt::format("'{}'", text));
  next();
}

void TokenStream::need_operator(std::string_view text) {
  if (!peek().is(text)) unexpected(fmt::format("'{}'", text));
  next();
}

Nesting::Nesting(TokenStream& tokens) : tokens_(tokens) {
  if (tokens.depth_ >= kNestingLimit) {
    tokens.fail(fmt::format("nesting deeper than {}", kNestingLimit), JinjaProblem::kLimit);
  }
  ++tokens.depth_;
}

ExprPtr Expressions::make(Expr::Kind kind, int line) {
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

// Adds an operand.
ExprPtr Expressions::with(ExprPtr parent, ExprPtr child) {
  if (child) parent->depth = std::max(parent->depth, child->depth + 1);
  if (parent->depth > kDepthLimit) {
    tokens_.fail(fmt::format("an expression deeper than {}", kDepthLimit), JinjaProblem::kLimit);
  }
  parent->args.push_back(std::move(child));
  return parent;
}

ExprPtr Expressions::constant(Expr::Constant constant) {
  ExprPtr node = make(Expr::Kind::kConst, tokens_.peek().line);
  node->constant = constant;
  tokens_.next();
  return node;
}

bool Expressions::ends_tuple() const {
  const Token& token = tokens_.peek();
  return token.kind == Kind::kPrintEnd || token.kind == Kind::kBlockEnd || token.is(")");
}

ExprPtr Expressions::tuple(bool choices) {
  const auto one = [&] { return choices ? choice() : either(); };
  const int line = tokens_.peek().line;
  ExprPtr first = one();
  if (!tokens_.peek().is(",")) return first;
  ExprPtr node = with(make(Expr::Kind::kTuple, line), std::move(first));
  while (tokens_.peek().is(",")) {
    tokens_.next();
    if (ends_tuple()) break;
    node = with(std::move(node), one());
  }
  return node;
}

ExprPtr Expressions::choice() {
  const Nesting nesting(tokens_);
  ExprPtr value = either();
  while (tokens_.peek().is_name("if")) {
    const int line = tokens_.next().line;
    ExprPtr node = with(make(Expr::Kind::kChoice, line), std::move(value));
    node = with(std::move(node), either());
    ExprPtr otherwise;
    if (tokens_.peek().is_name("else")) {
      tokens_.next();
      otherwise = choice();
    }
    value = with(std::move(node), std::move(otherwise));
  }
  return value;
}

ExprPtr Expressions::either() {
  ExprPtr left = both();
  while (tokens_.peek().is_name("or")) {
    ExprPtr node = make(Expr::Kind::kBinary, tokens_.next().line);
    node->text = "or";
    left = with(with(std::move(node), std::move(left)), both());
  }
  return left;
}

ExprPtr Expressions::both() {
  ExprPtr left = negation();
  while (tokens_.peek().is_name("and")) {
    ExprPtr node = make(Expr::Kind::kBinary, tokens_.next().line);
    node->text = "and";
    left = with(with(std::move(node), std::move(left)), negation());
  }
  return left;
}

ExprPtr Expressions::negation() {
  if (!tokens_.peek().is_name("not")) return comparison();
  const Nesting nesting(tokens_);
  const int line = tokens_.next().line;
  return with(make(Expr::Kind::kNot, line), negation());
}

ExprPtr Expressions::comparison() {
  ExprPtr left = sum();
  ExprPtr node;
  for (;;) {
    const Token& token = tokens_.peek();
    std::string name;
    if (token.kind == Kind::kOperator &&
        (token.text == "==" || token.text == "!=" || token.text == "<" || token.text == "<=" ||
         token.text == ">" || token.text == ">=")) {
      name = token.text;
    } else if (token.is_name("in")) {
      name = "in";
    } else if (token.is_name("not") && tokens_.peek(1).is_name("in")) {
      name = "not in";
      tokens_.next();
    } else {
      break;
    }
    const int line = tokens_.next().line;
    if (!node) node = with(make(Expr::Kind::kCompare, line), std::move(left));
    node->operators.push_back(name);
    node = with(std::move(node), sum());
  }
  return node ? std::move(node) : std::move(left);
}

ExprPtr Expressions::sum() {
  ExprPtr left = joined();
  while (tokens_.peek().is("+") || tokens_.peek().is("-")) {
    const Token token = tokens_.next();
    ExprPtr node = make(Expr::Kind::kBinary, token.line);
    node->text = token.text;
    left = with(with(std::move(node), std::move(left)), joined());
  }
  return left;
}

ExprPtr Expressions::joined() {
  ExprPtr left = product();
  if (!tokens_.peek().is("~")) return left;
  ExprPtr node = with(make(Expr::Kind::kConcat, tokens_.peek().line), std::move(left));
  while (tokens_.peek().is("~")) {
    tokens_.next();
    node = with(std::move(node), product());
  }
  return node;
}

ExprPtr Expressions::product() {
  ExprPtr left = power();
  while (tokens_.peek().is("*") || tokens_.peek().is("/") || tokens_.peek().is("//") ||
         tokens_.peek().is("%")) {
    const Token token = tokens_.next();
    ExprPtr node = make(Expr::Kind::kBinary, token.line);
    node->text = token.text;
    left = with(with(std::move(node), std::move(left)), power());
  }
  return left;
}

ExprPtr Expressions::power() {
  ExprPtr left = signed_value(true);
  while (tokens_.peek().is("**")) {
    ExprPtr node = make(Expr::Kind::kBinary, tokens_.next().line);
    node->text = "**";
    left = with(with(std::move(node), std::move(left)), signed_value(true));
  }
  return left;
}

ExprPtr Expressions::signed_value(bool with_filters) {
  const Nesting nesting(tokens_);
  ExprPtr node;
  if (tokens_.peek().is("-") || tokens_.peek().is("+")) {
    const Token sign = tokens_.next();
    node = with(make(sign.text == "-" ? Expr::Kind::kNegative : Expr::Kind::kPositive, sign.line),
                signed_value(false));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filters ? filters(std::move(node)) : std::move(node);
}

ExprPtr Expressions::primary() {
  const Token& token = tokens_.peek();
  switch (token.kind) {
    case Kind::kName: {
      if (token.text == "true" || token.text == "True") return constant(Expr::Constant::kTrue);
      if (token.text == "false" || token.text == "False") return constant(Expr::Constant::kFalse);
      if (token.text == "none" || token.text == "None") return constant(Expr::Constant::kNone);
      ExprPtr node = make(Expr::Kind::kName, token.line);
      node->text = tokens_.next().text;
      return node;
    }
    case Kind::kString: {
      const std::string text = token.text;
      ExprPtr node = constant(Expr::Constant::kString);
      node->text = text;
      while (tokens_.peek().kind == Kind::kString) node->text += tokens_.next().text;
      return node;
    }
    case Kind::kInteger:
    case Kind::kFloat:
      return number();
    case Kind::kOperator:
      if (token.text == "(") return in_parentheses();
      if (token.text == "[") return list();
      if (token.text == "{") return dictionary();
      break;
    default:
      break;
  }
  tokens_.unexpected("an expression");
}

ExprPtr Expressions::number() {
  const std::string text = tokens_.peek().text;
  const bool real = tokens_.peek().kind == Kind::kFloat;
  ExprPtr node = constant(real ? Expr::Constant::kFloat : Expr::Constant::kInteger);
  const char* end = text.data() + text.size();
  const auto read = real ? std::from_chars(text.data(), end, node->real)
                         : std::from_chars(text.data(), end, node->integer);
  if (read.ec != std::errc() || read.ptr != end) {
    tokens_.fail(fmt::format("the number {}", text), JinjaProblem::kUnsupported);
  }
  return node;
}

ExprPtr Expressions::in_parentheses() {
  const int line = tokens_.next().line;
  if (tokens_.peek().is(")")) {
    tokens_.next();
    return make(Expr::Kind::kTuple, line);
  }
  ExprPtr node = tuple(true);
  tokens_.need_operator(")");
  return node;
}

ExprPtr Expressions::list() {
  ExprPtr node = make(Expr::Kind::kList, tokens_.next().line);
  while (!tokens_.peek().is("]")) {
    if (!node->args.empty()) tokens_.need_operator(",");
    if (tokens_.peek().is("]")) break;
    node = with(std::move(node), choice());
  }
  tokens_.next();
  return node;
}

ExprPtr Expressions::dictionary() {
  ExprPtr node = make(Expr::Kind::kDict, tokens_.next().line);
  while (!tokens_.peek().is("}")) {
    if (!node->args.empty()) tokens_.need_operator(",");
    if (tokens_.peek().is("}")) break;
    node = with(std::move(node), choice());
    tokens_.need_operator(":");
    node = with(std::move(node), choice());
  }
  tokens_.next();
  return node;
}

ExprPtr Expressions::postfix(ExprPtr value) {
  for (;;) {
    const Token& token = tokens_.peek();
    if (token.is(".") || token.is("[")) {
      value = subscript(std::move(value));
    } else if (token.is("(")) {
      value = with(make(Expr::Kind::kCall, token.line), std::move(value));
      arguments(*value);
    } else {
      return value;
    }
  }
}

ExprPtr Expressions::filters(ExprPtr value) {
  for (;;) {
    const Token& token = tokens_.peek();
    if (token.is("|")) {
      tokens_.next();
      value = filter(std::move(value), token.line);
    } else if (value && token.is_name("is")) {
      value = test(std::move(value));
    } else if (value && token.is("(")) {
      value = with(make(Expr::Kind::kCall, token.line), std::move(value));
      arguments(*value);
    } else {
      return value;
    }
  }
}

std::string Expressions::dotted_name() {
  if (tokens_.peek().kind != Kind::kName) tokens_.unexpected("a name");
  std::string name = tokens_.next().text;
  while (tokens_.peek().is(".")) {
    tokens_.next();
    if (tokens_.peek().kind != Kind::kName) tokens_.unexpected("a name");
    name += "." + tokens_.next().text;
  }
  return name;
}

ExprPtr Expressions::block_filters() { return filters(filter(nullptr, tokens_.peek().line)); }

ExprPtr Expressions::filter(ExprPtr value, int line) {
  ExprPtr node = make(Expr::Kind::kFilter, line);
  node->text = dotted_name();
  node = with(std::move(node), std::move(value));
  if (tokens_.peek().is("(")) arguments(*node);
  return node;
}

ExprPtr Expressions::test(ExprPtr value) {
  const int line = tokens_.next().line;
  const bool negated = tokens_.peek().is_name("not");
  if (negated) tokens_.next();
  ExprPtr node = make(Expr::Kind::kTest, line);
  node->text = dotted_name();
  node = with(std::move(node), std::move(value));
  const Token& token = tokens_.peek();
  if (token.is("(")) {
    arguments(*node);
  } else if (token.kind == Kind::kString || token.kind == Kind::kInteger ||
             token.kind == Kind::kFloat || token.is("[") || token.is("{") ||
             (token.kind == Kind::kName && token.text != "else" && token.text != "or" &&
              token.text != "and")) {
    if (token.is_name("is")) tokens_.fail("tests one behind the other with 'is'");
    node = with(std::move(node), postfix(primary()));
  }
  return negated ? with(make(Expr::Kind::kNot, line), std::move(node)) : std::move(node);
}

ExprPtr Expressions::subscript(ExprPtr value) {
  const Token open = tokens_.next();
  if (open.text == ".") {
    const Token name = tokens_.next();
    if (name.kind == Kind::kName) {
      ExprPtr node = with(make(Expr::Kind::kAttribute, open.line), std::move(value));
      node->text = name.text;
      return node;
    }
    if (name.kind != Kind::kInteger) tokens_.fail("a name or a number is needed after '.'");
    tokens_.fail("an item by '.' and a number", JinjaProblem::kUnsupported);
  }
  const auto bound = [&]() -> ExprPtr {
    return tokens_.peek().is(":") || tokens_.peek().is("]") ? nullptr : choice();
  };
  ExprPtr first = bound();
  if (tokens_.peek().is(",")) tokens_.fail("several items in []", JinjaProblem::kUnsupported);
  ExprPtr node;
  if (tokens_.peek().is(":")) {
    node = with(make(Expr::Kind::kSlice, open.line), std::move(value));
    node = with(std::move(node), std::move(first));
    tokens_.next();
    node = with(std::move(node), bound());
    ExprPtr step;
    if (tokens_.peek().is(":")) {
      tokens_.next();
      step = bound();
    }
    node = with(std::move(node), std::move(step));
  } else {
    if (!first) tokens_.unexpected("an expression");
    node = with(with(make(Expr::Kind::kItem, open.line), std::move(value)), std::move(first));
  }
  tokens_.need_operator("]");
  return node;
}

void Expressions::arguments(Expr& call) {
  tokens_.next();
  bool first = true;
  while (!tokens_.peek().is(")")) {
    if (!first) tokens_.need_operator(",");
    first = false;
    if (tokens_.peek().is(")")) break;
    if (tokens_.peek().is("*") || tokens_.peek().is("**")) {
      tokens_.fail("* or ** before an argument", JinjaProblem::kUnsupported);
    }
    ExprPtr value;
    std::string name;
    if (tokens_.peek().kind == Kind::kName && tokens_.peek(1).is("=")) {
      name = tokens_.next().text;
      tokens_.next();
    } else if (!call.named.empty()) {
      tokens_.fail("an argument without a name behind one that has it");
    }
    value = choice();
    call.depth = std::max(call.depth, value->depth + 1);
    if (call.depth > kDepthLimit) {
      tokens_.fail(fmt::format("an expression deeper than {}", kDepthLimit), JinjaProblem::kLimit);
    }
    if (name.empty()) {
      call.args.push_back(std::move(value));
    } else {
      call.named.emplace_back(std::move(name), std::move(value));
    }
  }
  tokens_.next();
}

}  // namespace ds::jinja
