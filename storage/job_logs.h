// What happened in a job: one JSON object a line, a file a job, FOLDER/ID.log.

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace pared {

// A job that says more is cut there, with a last line that says so. The job's own events, which
// are few, still come after.
constexpr int64_t kJobLogBytesMax = int64_t{1} << 20;
// A longer line is cut.
constexpr size_t kJobLogLineMax = 8 * 1024;

enum class LogSource { kWorker, kRunner };  // only the worker is cut

struct JobLogPart {
  std::string text;  // whole lines
  int64_t next = 0;  // offset that the following part begins with
};

class JobLogs {
 public:
  explicit JobLogs(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // Appends a line. Text that is no JSON object is wrapped in one, as "text" of an event "output".
  // A disk that refuses loses the line: a log is no reason to end a job.
  void Append(int64_t job, std::string_view line, LogSource source) const;

  // The lines from byte `after` on, 256 kB at most. Empty where there are no more, or no log.
  JobLogPart Read(int64_t job, int64_t after) const;

  // Removes the logs of jobs for which `is_kept` is false. Returns their count.
  int64_t Sweep(const std::function<bool(int64_t job)>& is_kept, bool is_dry) const;

 private:
  std::filesystem::path Path(int64_t job) const;

  const std::filesystem::path folder_;
};

}  // namespace pared
