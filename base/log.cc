#include "base/log.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace pared {
namespace {

std::atomic<LogLevel> log_level = LogLevel::kInfo;

// The length of the UTF-8 sequence that `text` begins with; 0: it begins with none (RFC 3629: no
// overlong forms, no surrogates, nothing beyond U+10FFFF).
size_t SequenceLength(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  const bool is_overlong = (first == 0xE0 && second < 0xA0) || (first == 0xF0 && second < 0x90);
  const bool is_no_character = (first == 0xED && second > 0x9F) || (first == 0xF4 && second > 0x8F);
  return is_overlong || is_no_character ? 0 : length;
}

// Bytes that are no UTF-8, in the path of a request say, become U+FFFD: a line is always JSON.
void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  for (size_t i = 0, length = 1; i < text.size(); i += std::max<size_t>(1, length)) {
    const char c = text[i];
    length = SequenceLength(text.substr(i));
    if (length == 0) {
      out += "\\ufffd";
    } else if (length > 1) {
      out += text.substr(i, length);
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  out += '"';
}

void AppendNumber(std::string& out, double value) {
  if (!std::isfinite(value)) {  // JSON has no word for these
    AppendQuoted(out, std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf");
    return;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", value);
  out += text;
}

void AppendValue(std::string& out, const LogValue& value) {
  if (const std::string* text = std::get_if<std::string>(&value)) {
    AppendQuoted(out, *text);
  } else if (const int64_t* integer = std::get_if<int64_t>(&value)) {
    out += std::to_string(*integer);
  } else if (const double* number = std::get_if<double>(&value)) {
    AppendNumber(out, *number);
  } else {
    out += std::get<bool>(value) ? "true" : "false";
  }
}

std::string Now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc = {};
  gmtime_r(&seconds, &utc);
  char date[32];
  const size_t length = std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
  char fraction[8];
  std::snprintf(fraction, sizeof fraction, ".%03dZ", static_cast<int>(ms % 1000));
  return std::string(date, length) + fraction;
}

}  // namespace

void SetLogLevel(LogLevel level) { log_level = level; }

void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (level < log_level.load()) return;
  constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  std::string line = "{\"time\":\"" + Now() + "\",\"level\":\"" + kNames[static_cast<int>(level)] +
                     "\",\"event\":";
  AppendQuoted(line, event);
  for (const LogField& field : fields) {
    line += ',';
    AppendQuoted(line, field.name);
    line += ':';
    AppendValue(line, field.value);
  }
  line += "}\n";
  std::fwrite(line.data(), 1, line.size(), stderr);  // one call: stdio locks the stream
}

}  // namespace pared
