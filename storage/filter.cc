#include "storage/filter.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "base/error.h"
#include "config/fields.h"

namespace pared {
namespace {

constexpr size_t kBytesMax = 4'096;
constexpr int kDepthMax = 32;
constexpr int kTestsMax = 64;  // each may cost a look-up a run

[[noreturn]] void Refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

struct TableColumn {
  const char* name;
  const char* sql;
  FieldType type;
};
constexpr TableColumn kColumns[] = {
    {"id", "runs.id", FieldType::kNumber},
    {"job", "runs.job", FieldType::kNumber},
    {"created_ms", "runs.created_ms", FieldType::kNumber},
    {"experiment", "runs.experiment", FieldType::kText},
    {"model", "runs.model", FieldType::kText},
    {"chain", "runs.chain", FieldType::kText},
    {"artifact", "runs.artifact", FieldType::kText},
    {"note", "runs.note", FieldType::kText},
    {"error", "runs.error", FieldType::kText},
};

constexpr const char* kMetricSql =
    "(SELECT value FROM metrics WHERE metrics.run = runs.id AND metrics.name = ?)";
constexpr const char* kColumnSql = "column_at(?, runs.id)";
constexpr const char* kBaselineSql =
    "(SELECT b.value FROM runs AS r JOIN metrics AS b ON b.run = r.id AND b.name = ? "
    "WHERE r.job = runs.job AND r.chain = 'baseline')";
// From the index of failed runs: the text itself lies behind kilobytes of other JSON.
constexpr const char* kHasErrorSql = "runs.id IN (SELECT id FROM runs WHERE error IS NOT NULL)";
constexpr const char* kHasNoErrorSql =
    "runs.id NOT IN (SELECT id FROM runs WHERE error IS NOT NULL)";
constexpr const char* kTagSql = "(SELECT value FROM tags WHERE tags.run = runs.id AND name = ?)";
// A chain may hold a pass twice: its first use counts.
constexpr const char* kOptionSql =
    "(SELECT json_extract(s.value, ?) FROM json_each(runs.steps) AS s "
    "WHERE json_extract(s.value, '$.pass') = ? LIMIT 1)";

std::string JsonPath(const std::string& name) { return "$.\"" + name + "\""; }

std::string UnknownField(const std::string& name, const std::vector<std::string>& metrics) {
  std::vector<std::string> names = metrics;
  for (const std::string& metric : metrics) names.push_back(metric + "_drop");
  for (const TableColumn& column : kColumns) names.emplace_back(column.name);
  return "no run has a field or metric \"" + name + "\"" + DidYouMean(name, names);
}

enum class TokenKind { kEnd, kWord, kNumber, kText, kSymbol };

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // of a word as it stands, of a text without its quotes
  double number = 0;
  size_t column = 1;
};

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }

std::string At(size_t column) { return "filter:" + std::to_string(column); }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Token Next() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n')) {
      ++at_;
    }
    Token token;
    token.column = at_ + 1;
    if (at_ == text_.size()) return token;
    const char c = text_[at_];
    if (IsLetter(c)) {
      token.kind = TokenKind::kWord;
      while (at_ < text_.size() && IsWordPart(text_[at_])) token.text += text_[at_++];
    } else if (IsDigit(c) || c == '-' || c == '+' || c == '.') {
      ReadNumber(token);
    } else if (c == '"' || c == '\'') {
      ReadText(token);
    } else {
      ReadSymbol(token);
    }
    return token;
  }

 private:
  static bool IsWordPart(char c) { return IsLetter(c) || IsDigit(c) || c == '.' || c == '-'; }

  void ReadNumber(Token& token) {
    token.kind = TokenKind::kNumber;
    if (text_[at_] == '+') ++at_;
    const char* begin = text_.data() + at_;
    const char* end = text_.data() + text_.size();
    const auto [rest, code] = std::from_chars(begin, end, token.number);
    if (code != std::errc() || !std::isfinite(token.number)) {
      Refuse(At(token.column), "here stands no number that a double holds");
    }
    at_ += static_cast<size_t>(rest - begin);
    if (at_ < text_.size() && IsWordPart(text_[at_])) {
      Refuse(At(at_ + 1), "a number ends here; text needs quotes");
    }
  }

  // A quote is written twice to stand inside.
  void ReadText(Token& token) {
    token.kind = TokenKind::kText;
    const char quote = text_[at_++];
    while (at_ < text_.size()) {
      if (text_[at_] == quote) {
        ++at_;
        if (at_ == text_.size() || text_[at_] != quote) return;
      }
      token.text += text_[at_++];
    }
    Refuse(At(token.column), "this quote is not closed");
  }

  void ReadSymbol(Token& token) {
    token.kind = TokenKind::kSymbol;
    for (const char* symbol : {"<=", ">=", "!=", "<>", "==", "=", "<", ">", "(", ")", ","}) {
      if (!text_.substr(at_).starts_with(symbol)) continue;
      token.text = symbol;
      at_ += token.text.size();
      return;
    }
    Refuse(At(token.column), "nothing in this language begins so");
  }

  const std::string_view text_;
  size_t at_ = 0;
};

class Parser {
 public:
  Parser(std::string_view text, const RunFields& fields)
      : lexer_(text), fields_(fields), token_(lexer_.Next()) {}

  SqlText Parse() {
    SqlText sql = Or();
    if (token_.kind != TokenKind::kEnd) RefuseToken("\"and\", \"or\" or the end");
    return sql;
  }

 private:
  SqlText Or() {
    if (++depth_ > kDepthMax) Refuse(At(token_.column), "this is nested too deeply");
    SqlText sql = {"(", {}};
    sql += And();
    while (TakeKeyword("or")) {
      sql.sql += " OR ";
      sql += And();
    }
    sql.sql += ")";
    --depth_;
    return sql;
  }

  SqlText And() {
    SqlText sql = Unary();
    while (TakeKeyword("and")) {
      sql.sql += " AND ";
      sql += Unary();
    }
    return sql;
  }

  SqlText Unary() {
    bool is_negated = false;
    while (TakeKeyword("not")) is_negated = !is_negated;
    SqlText sql = {is_negated ? "NOT " : "", {}};
    if (!TakeSymbol("(")) {
      sql += Test();
      return sql;
    }
    sql += Or();
    if (!TakeSymbol(")")) RefuseToken("\")\"");
    return sql;
  }

  SqlText Test() {
    if (token_.kind != TokenKind::kWord) RefuseToken("a field");
    if (++tests_ > kTestsMax) Refuse(At(token_.column), "there are too many tests");
    const Token name = Take();
    FieldSql field = FieldOf(name.text, fields_, At(name.column));
    SqlText sql = {"(", {}};
    if (TakeKeyword("is")) {
      const bool is_negated = TakeKeyword("not");
      if (!TakeKeyword("null")) RefuseToken("\"null\"");
      if (name.text == "error") {
        sql.sql += is_negated ? kHasErrorSql : kHasNoErrorSql;
      } else {
        sql += field.expression;
        sql.sql += is_negated ? " IS NOT NULL" : " IS NULL";
      }
    } else {
      sql += field.expression;
      Compare(field, sql);
    }
    sql.sql += ")";
    return sql;
  }

  void Compare(const FieldSql& field, SqlText& sql) {
    const bool is_negated = TakeKeyword("not");
    if (TakeKeyword("in")) {
      sql.sql += is_negated ? " NOT IN (" : " IN (";
      List(field, sql);
    } else if (TakeKeyword("like")) {
      sql.sql += is_negated ? " NOT LIKE ?" : " LIKE ?";
      if (field.type == FieldType::kNumber) RefuseToken("a comparison, as this field is a number");
      if (token_.kind != TokenKind::kText) RefuseToken("a text in quotes");
      sql.values.emplace_back(Take().text);
    } else if (is_negated) {
      RefuseToken("\"in\" or \"like\"");
    } else {
      sql.sql += " " + Operator() + " ?";
      sql.values.push_back(Literal(field));
    }
  }

  void List(const FieldSql& field, SqlText& sql) {
    if (!TakeSymbol("(")) RefuseToken("\"(\"");
    sql.sql += "?";
    sql.values.push_back(Literal(field));
    while (TakeSymbol(",")) {
      sql.sql += ", ?";
      sql.values.push_back(Literal(field));
    }
    if (!TakeSymbol(")")) RefuseToken("\",\" or \")\"");
    sql.sql += ")";
  }

  std::string Operator() {
    const std::string& text = token_.text;
    const bool is_operator =
        token_.kind == TokenKind::kSymbol && text != "(" && text != ")" && text != ",";
    if (!is_operator) RefuseToken("a comparison, \"in\", \"like\" or \"is\"");
    return Take().text;  // all of them are SQLite's too
  }

  SqlValue Literal(const FieldSql& field) {
    if (token_.kind == TokenKind::kText) {
      if (field.type == FieldType::kNumber) RefuseToken("a number, as this field is one");
      return Take().text;
    }
    if (field.type == FieldType::kText) RefuseToken("a text in quotes, as this field is one");
    if (token_.kind == TokenKind::kNumber) return Take().number;
    if (TakeKeyword("true")) return int64_t{1};
    if (TakeKeyword("false")) return int64_t{0};
    RefuseToken("a number, or a text in quotes");
  }

  Token Take() { return std::exchange(token_, lexer_.Next()); }

  bool TakeKeyword(std::string_view word) {
    if (token_.kind != TokenKind::kWord) return false;
    const auto is_same = [](char a, char b) { return a == b || (a >= 'A' && a + 32 == b); };
    if (!std::equal(token_.text.begin(), token_.text.end(), word.begin(), word.end(), is_same)) {
      return false;
    }
    Take();
    return true;
  }

  bool TakeSymbol(std::string_view symbol) {
    if (token_.kind != TokenKind::kSymbol || token_.text != symbol) return false;
    Take();
    return true;
  }

  [[noreturn]] void RefuseToken(const std::string& wanted) const {
    const std::string got = token_.kind == TokenKind::kEnd      ? "the end"
                            : token_.kind == TokenKind::kNumber ? "a number"
                                                                : "\"" + token_.text + "\"";
    Refuse(At(token_.column), "needs " + wanted + " here, not " + got);
  }

  Lexer lexer_;
  const RunFields& fields_;
  Token token_;
  int depth_ = 0;
  int tests_ = 0;
};

}  // namespace

SqlText& SqlText::operator+=(const SqlText& other) {
  sql += other.sql;
  values.insert(values.end(), other.values.begin(), other.values.end());
  return *this;
}

FieldSql FieldOf(const std::string& name, const RunFields& fields, const std::string& where) {
  const std::vector<std::string>& metrics = fields.metrics;
  for (const TableColumn& column : kColumns) {
    if (name == column.name) return {{column.sql, {}}, column.type};
  }
  const size_t dot = std::min(name.find('.'), name.size());
  const std::string head = name.substr(0, dot);
  const std::string tail = name.substr(std::min(dot + 1, name.size()));
  if (head == "tags" && !tail.empty()) return {{kTagSql, {tail}}, FieldType::kText};
  if (head == "machine" && !tail.empty()) {
    return {{"json_extract(runs.machine, ?)", {JsonPath(tail)}}, FieldType::kAny};
  }
  if (head == "passes") {
    const size_t second = tail.find('.');
    if (second == tail.npos) Refuse(where, "must be passes.PASS.OPTION");
    const std::string pass = tail.substr(0, second), option = tail.substr(second + 1);
    const std::string fault = fields.check ? fields.check(pass, option) : "";
    if (!fault.empty()) Refuse(where, fault);
    return {{kOptionSql, {JsonPath(option), pass}}, FieldType::kAny};
  }
  const auto exists = [&](const std::string& metric) {
    return std::find(metrics.begin(), metrics.end(), metric) != metrics.end();
  };
  const std::string base = name.ends_with("_drop") ? name.substr(0, name.size() - 5) : "";
  if (!base.empty() && !exists(name) && (metrics.empty() || exists(base))) {
    if (fields.column) return {{kColumnSql, {fields.column(base, true)}}, FieldType::kNumber};
    return {{std::string("(") + kBaselineSql + " - " + kMetricSql + ")", {base, base}},
            FieldType::kNumber};
  }
  if (!metrics.empty() && !exists(name)) Refuse(where, UnknownField(name, metrics));
  if (fields.column) return {{kColumnSql, {fields.column(name, false)}}, FieldType::kNumber};
  return {{kMetricSql, {name}}, FieldType::kNumber};
}

SqlText ParseFilter(std::string_view text, const RunFields& fields) {
  if (text.size() > kBytesMax) {
    Refuse(At(kBytesMax + 1), "is longer than " + std::to_string(kBytesMax) + " bytes");
  }
  return Parser(text, fields).Parse();
}

}  // namespace pared
