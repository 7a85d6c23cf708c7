// The tokens of ONNX's textual syntax.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pared {

class TextScanner {
 public:
  explicit TextScanner(std::string_view text) : text_(text) {}

  // Throws kInvalidArgument at the line and column of the next token.
  [[noreturn]] void Fail(const std::string& message) const;

  bool AtEnd();
  // The next character that is neither space nor comment; '\0' at the end.
  char Peek();
  bool Match(char c);
  bool Match(std::string_view symbol);
  void Expect(char c);
  void Expect(std::string_view symbol);

  bool AtName();
  // A word of letters, digits and underscores, or a quoted string, which may hold any name.
  std::string Name();
  // Empty where no name follows: an optional input left out.
  std::string OptionalName();
  std::string String();

  struct Number {
    bool is_float = false;
    int64_t integer = 0;  // the bits, where the number is beyond int64
    double real = 0;      // of integers too
  };
  bool AtNumber();
  Number ReadNumber();

  size_t position() const { return position_; }
  void Rewind(size_t position) { position_ = position; }

 private:
  std::string Word();

  std::string_view text_;
  size_t position_ = 0;
};

// `text` in quotes, as TextScanner::String reads it.
std::string QuotedText(const std::string& text);

}  // namespace pared
