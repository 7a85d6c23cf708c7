#include "model/text_scanner.h"

#include <cctype>
#include <charconv>
#include <limits>

#include "base/error.h"

namespace pared {
namespace {

bool IsWordStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsWord(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

}  // namespace

void TextScanner::Fail(const std::string& message) const {
  size_t line = 1;
  size_t column = 1;
  for (const char c : text_.substr(0, position_)) {
    column = c == '\n' ? 1 : column + 1;
    if (c == '\n') ++line;
  }
  throw Error(ErrorCode::kInvalidArgument, message,
              "line " + std::to_string(line) + ", column " + std::to_string(column));
}

char TextScanner::Peek() {
  while (position_ < text_.size()) {
    const char c = text_[position_];
    if (c == '#') {
      while (position_ < text_.size() && text_[position_] != '\n') ++position_;
    } else if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++position_;
    } else {
      return c;
    }
  }
  return '\0';
}

bool TextScanner::AtEnd() {
  Peek();
  return position_ >= text_.size();
}

bool TextScanner::Match(char c) { return Match(std::string_view(&c, 1)); }

bool TextScanner::Match(std::string_view symbol) {
  Peek();
  if (!text_.substr(position_).starts_with(symbol)) return false;
  position_ += symbol.size();
  return true;
}

void TextScanner::Expect(char c) { Expect(std::string_view(&c, 1)); }

void TextScanner::Expect(std::string_view symbol) {
  if (Match(symbol)) return;
  const std::string found = AtEnd() ? "the end" : std::string("'") + Peek() + "'";
  Fail("expected '" + std::string(symbol) + "', found " + found);
}

bool TextScanner::AtName() { return IsWordStart(Peek()) || Peek() == '"'; }

std::string TextScanner::Word() {
  const size_t begin = position_;
  while (position_ < text_.size() && IsWord(text_[position_])) ++position_;
  return std::string(text_.substr(begin, position_ - begin));
}

std::string TextScanner::Name() {
  if (!AtName()) Fail("expected a name");
  return Peek() == '"' ? String() : Word();
}

std::string TextScanner::OptionalName() { return AtName() ? Name() : ""; }

std::string TextScanner::String() {
  Expect('"');
  std::string value;
  for (; position_ < text_.size(); ++position_) {
    char c = text_[position_];
    if (c == '"') {
      ++position_;
      return value;
    }
    if (c == '\\' && position_ + 1 < text_.size()) {
      c = text_[++position_];
      if (c == 'n') c = '\n';
    }
    value += c;
  }
  Fail("the string does not end");
}

bool TextScanner::AtNumber() {
  const char c = Peek();
  if (IsDigit(c) || c == '-' || c == '+') return true;
  const std::string_view rest = text_.substr(position_);
  for (const std::string_view word : {"inf", "nan", "true", "false"}) {
    if (rest.starts_with(word) && (rest.size() == word.size() || !IsWord(rest[word.size()]))) {
      return true;
    }
  }
  return false;
}

TextScanner::Number TextScanner::ReadNumber() {
  if (!AtNumber()) Fail("expected a number");
  if (Match(std::string_view("true"))) return {.is_float = false, .integer = 1, .real = 1};
  if (Match(std::string_view("false"))) return {};
  const bool negative = Match('-');
  if (!negative) Match('+');
  if (Match(std::string_view("inf"))) {
    const double infinity = std::numeric_limits<double>::infinity();
    return {.is_float = true, .integer = 0, .real = negative ? -infinity : infinity};
  }
  if (Match(std::string_view("nan"))) {
    return {.is_float = true, .integer = 0, .real = std::numeric_limits<double>::quiet_NaN()};
  }
  const std::string_view rest = text_.substr(position_);
  Number number;
  const auto [real_end, real_error] =
      std::from_chars(rest.data(), rest.data() + rest.size(), number.real);
  uint64_t integer = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), integer);
  if (real_error != std::errc()) Fail("expected a number");
  number.is_float = end != real_end || error != std::errc();
  number.integer = static_cast<int64_t>(negative ? 0 - integer : integer);
  if (negative) number.real = -number.real;
  position_ += static_cast<size_t>(real_end - rest.data());
  return number;
}

std::string QuotedText(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c == '\n' ? "\\n" : std::string(1, c);
  }
  return quoted + "\"";
}

}  // namespace pared
