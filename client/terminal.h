// What the client writes: tables, numbers as people read them, colours where a terminal shows them.

#pragma once

#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "config/fields.h"

namespace pared {

enum class Colour { kNone, kRed, kGreen, kYellow, kBold, kFaint };

struct Terminal {
  std::ostream& out;
  std::ostream& err;
  int width = 80;            // columns
  bool is_terminal = false;  // out is one: a line may be written over
  bool has_colour = false;
  bool has_unicode = false;

  std::string Paint(std::string_view text, Colour colour) const;
};

// Of this process's standard output. NO_COLOR and a locale without UTF-8 are heeded.
Terminal OpenTerminal(std::ostream& out, std::ostream& err);

// Columns that a terminal shows: code points, for the texts here hold no wide characters.
size_t WidthOf(std::string_view text);

// `text` with control characters as spaces: what a daemon or a model's author wrote must not steer
// the terminal.
std::string Printable(std::string text);

// At most `width` columns, with an ellipsis where something was left out.
std::string Shortened(const std::string& text, size_t width, bool has_unicode);

// A value of a run: four significant digits, bytes as kB, MB and GB where `name` says bytes, times
// of creation as UTC. Null is "-".
std::string HumanText(std::string_view name, const Json& value);

// "2026-11-25 17:02:11", UTC.
std::string TimeText(int64_t time_ms);

class Table {
 public:
  explicit Table(std::vector<std::string> head) : head_(std::move(head)) {}

  void Add(std::vector<std::string> cells, Colour colour = Colour::kNone);
  size_t row_count() const { return rows_.size(); }
  // Two spaces between columns; a column of numbers stands to the right. No cell is cut.
  void Write(const Terminal& terminal) const;

 private:
  struct Row {
    std::vector<std::string> cells;
    Colour colour;
  };
  std::vector<std::string> head_;
  std::vector<Row> rows_;
};

}  // namespace pared
