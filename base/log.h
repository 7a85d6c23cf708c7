// Structured log: one JSON object a line, on stderr.
//
//   LogEvent(LogLevel::kInfo, "job_claimed", {{"job", 17}, {"model", "yolov8n"}});
//   {"time":"2026-11-25T12:00:00.123Z","level":"info","event":"job_claimed","job":17,"model":"yolov8n"}

#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace pared {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

using LogValue = std::variant<std::string, int64_t, double, bool>;

struct LogField {
  template <class T>
  LogField(std::string_view field_name, const T& field_value) : name(field_name) {
    if constexpr (std::is_same_v<T, bool>) {
      value = field_value;
    } else if constexpr (std::is_integral_v<T>) {
      value = static_cast<int64_t>(field_value);
    } else if constexpr (std::is_floating_point_v<T>) {
      value = static_cast<double>(field_value);
    } else {
      value = std::string(field_value);
    }
  }
  std::string name;
  LogValue value;
};

// Events below `level` are dropped. The default is kInfo. Thread-safe.
void SetLogLevel(LogLevel level);

// Writes one line atomically. Thread-safe.
void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

}  // namespace pared
