#include "libcore/text/jinja_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "libcore/text/jinja.h"
#include "libcore/text/jinja_expressions.h"

namespace ds::jinja {
namespace {

using Kind = Token::Kind;

// Statements of jinja2 and of common extensions that chat templates do without.
constexpr std::array<std::string_view, 13> kOtherStatements{
    "block", "extends", "include", "import", "from",       "call",     "print",
    "do",    "trans",   "debug",   "raw",    "autoescape", "pluralize"};

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(tokens_) {}

  Block run() { return body({}); }

 private:
  using Ends = std::vector<std::string_view>;

  // Statements until a {% that begins with one of `ends`, whose {% is still ahead.
  Block body(const Ends& ends) {
    const Nesting nesting(tokens_);
    Block block;
    while (tokens_.peek().kind != Kind::kEnd) {
      const Token& token = tokens_.peek();
      if (token.kind == Kind::kData) {
        auto statement = make(Statement::Kind::kData);
        statement->text = token.text;
        tokens_.next();
        block.statements.push_back(std::move(statement));
      } else if (token.kind == Kind::kPrintBegin) {
        tokens_.next();
        auto statement = make(Statement::Kind::kPrint);
        statement->value = expressions_.tuple(true);
        tokens_.need(Kind::kPrintEnd, "}}");
        block.statements.push_back(std::move(statement));
      } else {
        const Token& word = tokens_.peek(1);
        if (word.kind != Kind::kName) tokens_.fail("a tag without a name");
        if (std::find(ends.begin(), ends.end(), word.text) != ends.end()) return block;
        tokens_.next();
        block.statements.push_back(tag());
      }
    }
    if (!ends.empty())
      tokens_.fail(fmt::format("the end of the template, '{}' is needed", ends[0]));
    return block;
  }

  std::unique_ptr<Statement> make(Statement::Kind kind) {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = tokens_.peek().line;
    return statement;
  }
  void end_of_tag() { tokens_.need(Kind::kBlockEnd, "%}"); }
  // {% word %}, with its {% ahead.
  std::string ending() {
    tokens_.next();
    return tokens_.next().text;
  }

  std::unique_ptr<Statement> tag() {
    const std::string word = tokens_.peek().text;
    auto statement = make(Statement::Kind::kScope);
    if (word != "if" && word != "for" && word != "set" && word != "macro" && word != "with" &&
        word != "generation" && word != "filter" && word != "break" && word != "continue") {
      if (std::find(kOtherStatements.begin(), kOtherStatements.end(), word) !=
          kOtherStatements.end()) {
        tokens_.fail(fmt::format("the statement '{}'", word), JinjaProblem::kUnsupported);
      }
      tokens_.fail(fmt::format("unknown statement '{}'", word));
    }
    tokens_.next();
    if (word == "if") {
      condition(*statement);
    } else if (word == "for") {
      loop(*statement);
    } else if (word == "set") {
      set(*statement);
    } else if (word == "macro") {
      macro(*statement);
    } else if (word == "with") {
      with(*statement);
    } else if (word == "filter") {
      statement->kind = Statement::Kind::kFilter;
      statement->value = expressions_.block_filters();
      end_of_tag();
      statement->body = body({"endfilter"});
      ending();
      end_of_tag();
    } else if (word == "generation") {
      end_of_tag();
      statement->body = body({"endgeneration"});
      ending();
      end_of_tag();
    } else {
      if (loops_ == 0) tokens_.fail(fmt::format("'{}' outside of a loop", word));
      statement->kind = word == "break" ? Statement::Kind::kBreak : Statement::Kind::kContinue;
      end_of_tag();
    }
    return statement;
  }

  void condition(Statement& statement) {
    statement.kind = Statement::Kind::kIf;
    for (;;) {
      ExprPtr test = expressions_.tuple(false);
      end_of_tag();
      Block then = body({"elif", "else", "endif"});
      statement.branches.emplace_back(std::move(test), std::move(then));
      const std::string word = ending();
      if (word == "elif") continue;
      if (word == "else") {
        end_of_tag();
        statement.otherwise = body({"endif"});
        statement.has_otherwise = true;
        ending();
      }
      end_of_tag();
      return;
    }
  }

  void loop(Statement& statement) {
    statement.kind = Statement::Kind::kFor;
    statement.target = target(false);
    if (!tokens_.peek().is_name("in")) tokens_.unexpected("in");
    tokens_.next();
    statement.value = expressions_.tuple(false);
    if (tokens_.peek().is_name("if")) {
      tokens_.next();
      statement.test = expressions_.expression();
    }
    if (tokens_.peek().is_name("recursive")) {
      tokens_.fail("a recursive loop", JinjaProblem::kUnsupported);
    }
    end_of_tag();
    ++loops_;
    statement.body = body({"else", "endfor"});
    --loops_;
    if (ending() == "else") {
      end_of_tag();
      statement.otherwise = body({"endfor"});
      statement.has_otherwise = true;
      ending();
    }
    end_of_tag();
  }

  Target target(bool attributes) {
    Target target;
    const bool brackets = tokens_.peek().is("(");
    if (brackets) tokens_.next();
    for (;;) {
      if (tokens_.peek().kind != Kind::kName) tokens_.unexpected("a name");
      const Token name = tokens_.next();
      for (const char* reserved : {"true", "false", "none", "True", "False", "None"}) {
        if (name.text == reserved) tokens_.fail(fmt::format("a value for '{}'", name.text));
      }
      target.names.push_back(name.text);
      if (attributes && target.names.size() == 1 && tokens_.peek().is(".")) {
        tokens_.next();
        if (tokens_.peek().kind != Kind::kName) tokens_.unexpected("a name");
        target.attribute = tokens_.next().text;
        break;
      }
      if (!tokens_.peek().is(",")) break;
      tokens_.next();
      target.sequence = true;
      if (tokens_.peek().kind != Kind::kName) break;
    }
    if (brackets) tokens_.need_operator(")");
    return target;
  }

  void set(Statement& statement) {
    statement.kind = Statement::Kind::kSet;
    statement.target = target(true);
    if (tokens_.peek().is("=")) {
      tokens_.next();
      statement.value = expressions_.tuple(true);
      end_of_tag();
      return;
    }
    statement.block_set = true;
    statement.value = expressions_.filters(nullptr);
    end_of_tag();
    statement.body = body({"endset"});
    ending();
    end_of_tag();
  }

  void macro(Statement& statement) {
    statement.kind = Statement::Kind::kMacro;
    if (tokens_.peek().kind != Kind::kName) tokens_.unexpected("a name");
    statement.text = tokens_.next().text;
    tokens_.need_operator("(");
    while (!tokens_.peek().is(")")) {
      if (!statement.parameters.empty()) tokens_.need_operator(",");
      if (tokens_.peek().kind != Kind::kName) tokens_.unexpected("a name");
      std::string name = tokens_.next().text;
      ExprPtr value;
      if (tokens_.peek().is("=")) {
        tokens_.next();
        value = expressions_.expression();
      } else if (!statement.parameters.empty() && statement.parameters.back().second) {
        tokens_.fail("a parameter without a default behind one that has it");
      }
      statement.parameters.emplace_back(std::move(name), std::move(value));
    }
    tokens_.next();
    end_of_tag();
    const int loops = std::exchange(loops_, 0);
    statement.body = body({"endmacro"});
    loops_ = loops;
    ending();
    end_of_tag();
  }

  void with(Statement& statement) {
    statement.kind = Statement::Kind::kWith;
    while (tokens_.peek().kind != Kind::kBlockEnd) {
      if (!statement.parameters.empty()) tokens_.need_operator(",");
      const Target name = target(false);
      if (name.sequence) tokens_.fail("several names in 'with'", JinjaProblem::kUnsupported);
      tokens_.need_operator("=");
      statement.parameters.emplace_back(name.names[0], expressions_.expression());
    }
    end_of_tag();
    statement.body = body({"endwith"});
    ending();
    end_of_tag();
  }

  TokenStream tokens_;
  Expressions expressions_;
  int loops_ = 0;
};

}  // namespace

Block parse(std::string_view text) { return Parser(tokenize(text)).run(); }

}  // namespace ds::jinja
