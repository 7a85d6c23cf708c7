#include "base/log.h"

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>

namespace pared {
namespace {

std::atomic<LogLevel> log_level = LogLevel::kInfo;

void AppendQuoted(std::string& out, std::string_view text) {
  out += '"';
  for (char c : text) {
    if (c == '"' || c == '\\') {
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
