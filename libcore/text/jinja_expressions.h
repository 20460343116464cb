// The parser of expressions.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/text/jinja_lexer.h"
#include "libcore/text/jinja_tree.h"

namespace ds::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  // The last token, which is kEnd, stays.
  Token next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  [[noreturn]] void fail(const std::string& what, JinjaProblem problem = JinjaProblem::kSyntax);
  [[noreturn]] void unexpected(std::string_view needed);
  void need(Token::Kind kind, std::string_view text);
  void need_operator(std::string_view text);

 private:
  friend class Nesting;
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

// Counts how deep the parser is in itself; throws JinjaError(kLimit).
class Nesting {
 public:
  explicit Nesting(TokenStream& tokens);
  ~Nesting() { --tokens_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  TokenStream& tokens_;
};

class Expressions {
 public:
  explicit Expressions(TokenStream& tokens) : tokens_(tokens) {}

  ExprPtr expression() { return choice(); }
  // One expression, or several with commas as a tuple; `choices`: they may be "a if b else c".
  ExprPtr tuple(bool choices);
  // The filters that follow, on `value` (null: on a block); `value` when there are none.
  ExprPtr filters(ExprPtr value);
  // The filters of a filter block, whose first has no '|'.
  ExprPtr block_filters();

 private:
  ExprPtr make(Expr::Kind kind, int line);
  ExprPtr with(ExprPtr parent, ExprPtr child);
  ExprPtr constant(Expr::Constant constant);
  ExprPtr choice();
  ExprPtr either();
  ExprPtr both();
  ExprPtr negation();
  ExprPtr comparison();
  ExprPtr sum();
  ExprPtr joined();
  ExprPtr product();
  ExprPtr power();
  ExprPtr signed_value(bool with_filters);
  ExprPtr primary();
  ExprPtr in_parentheses();
  ExprPtr list();
  ExprPtr dictionary();
  ExprPtr number();
  ExprPtr postfix(ExprPtr value);
  ExprPtr filter(ExprPtr value, int line);
  ExprPtr test(ExprPtr value);
  ExprPtr subscript(ExprPtr value);
  void arguments(Expr& call);
  std::string dotted_name();
  bool ends_tuple() const;

  TokenStream& tokens_;
};

}  // namespace ds::jinja
