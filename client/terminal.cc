#include "client/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace pared {
namespace {

constexpr int kWidthMin = 40;
constexpr int kWidthMax = 400;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool LocaleHasUtf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = Environment(name);
    if (value.empty()) continue;
    return value.find("UTF-8") != value.npos || value.find("utf8") != value.npos;
  }
  return false;
}

int WidthOfTerminal() {
  winsize size = {};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return std::clamp<int>(size.ws_col, kWidthMin, kWidthMax);
}

std::string Formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// Powers of 1,000, as disks and networks count.
std::string BytesText(double bytes) {
  const char* unit = "B";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    if (std::abs(bytes) < 1000) break;
    bytes /= 1000;
    unit = next;
  }
  return Formatted(*unit == 'B' ? "%.0f " : "%.4g ", bytes) + unit;
}

bool IsNumberLike(const std::string& cell) {
  return cell == "-" || cell.find_first_of("0123456789") == 0 ||
         (cell.size() > 1 && (cell[0] == '-' || cell[0] == '+') &&
          cell.find_first_of("0123456789") == 1);
}

const char* CodeOf(Colour colour) {
  switch (colour) {
    case Colour::kRed:
      return "31";
    case Colour::kGreen:
      return "32";
    case Colour::kYellow:
      return "33";
    case Colour::kBold:
      return "1";
    case Colour::kFaint:
      return "2";
    case Colour::kNone:
      break;
  }
  return "0";
}

}  // namespace

std::string Terminal::Paint(std::string_view text, Colour colour) const {
  if (!has_colour || colour == Colour::kNone) return std::string(text);
  return std::string("\x1b[") + CodeOf(colour) + "m" + std::string(text) + "\x1b[0m";
}

Terminal OpenTerminal(std::ostream& out, std::ostream& err) {
  Terminal terminal = {out, err};
  terminal.is_terminal = isatty(STDOUT_FILENO) == 1 && Environment("TERM") != "dumb";
  terminal.has_unicode = LocaleHasUtf8();
  terminal.has_colour = terminal.is_terminal && Environment("NO_COLOR").empty();
  if (terminal.is_terminal) terminal.width = WidthOfTerminal();
  return terminal;
}

size_t WidthOf(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;  // continuation bytes begin no character
  }));
}

std::string Printable(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  return text;
}

std::string Shortened(const std::string& text, size_t width, bool has_unicode) {
  if (WidthOf(text) <= width) return text;
  const std::string_view mark = has_unicode ? "…" : "~";
  std::string kept;
  size_t columns = 0;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80 && ++columns >= width) break;
    kept += c;
  }
  return kept.append(mark);
}

std::string TimeText(int64_t time_ms) {
  const std::time_t seconds = time_ms / 1000;
  std::tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string HumanText(std::string_view name, const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (!value.is_number()) return DumpJson(value);
  if (name.ends_with("_bytes")) return BytesText(value.get<double>());
  if (name == "created_ms" || name == "started_ms" || name == "finished_ms" || name == "first_ms" ||
      name == "last_ms") {
    return TimeText(value.get<int64_t>());
  }
  if (value.is_number_integer()) return DumpJson(value);
  return Formatted("%.4g", value.get<double>());
}

void Table::Add(std::vector<std::string> cells, Colour colour) {
  cells.resize(head_.size());
  for (std::string& cell : cells) cell = Printable(std::move(cell));
  rows_.push_back({std::move(cells), colour});
}

void Table::Write(const Terminal& terminal) const {
  std::vector<size_t> widths;
  std::vector<bool> is_right;
  for (size_t i = 0; i < head_.size(); ++i) {
    size_t width = WidthOf(head_[i]);
    bool has_numbers = !rows_.empty();
    for (const Row& row : rows_) {
      width = std::max(width, WidthOf(row.cells[i]));
      has_numbers = has_numbers && (row.cells[i].empty() || IsNumberLike(row.cells[i]));
    }
    widths.push_back(width);
    is_right.push_back(has_numbers);
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string space(widths[i] - WidthOf(cells[i]), ' ');
      text += (i > 0 ? "  " : "") + (is_right[i] ? space + cells[i] : cells[i] + space);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  };
  terminal.out << terminal.Paint(line(head_), Colour::kBold) << "\n";
  for (const Row& row : rows_) terminal.out << terminal.Paint(line(row.cells), row.colour) << "\n";
}

}  // namespace pared
