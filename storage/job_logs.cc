#include "storage/job_logs.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <system_error>

#include "config/fields.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPartBytesMax = 256 * 1024;
constexpr const char* kCut = R"({"level":"warning","event":"log_is_full"})";

bool IsObject(std::string_view line) {
  return line.starts_with('{') && Json::accept(line.begin(), line.end());
}

std::string LineOf(std::string_view line) {
  line = line.substr(0, kJobLogLineMax);
  if (IsObject(line)) return std::string(line) + "\n";
  return DumpJson({{"level", "info"}, {"event", "output"}, {"text", std::string(line)}}) + "\n";
}

int64_t SizeOf(const fs::path& path) {
  std::error_code absent;
  const auto size = fs::file_size(path, absent);
  return absent ? 0 : static_cast<int64_t>(size);
}

// The job of a file named ID.log.
std::optional<int64_t> JobOf(const fs::path& path) {
  const std::string name = path.filename().string();
  int64_t job = 0;
  const auto [end, fault] = std::from_chars(name.data(), name.data() + name.size(), job);
  if (fault != std::errc() || std::string_view(end) != ".log") return std::nullopt;
  return job;
}

}  // namespace

fs::path JobLogs::Path(int64_t job) const { return folder_ / (std::to_string(job) + ".log"); }

void JobLogs::Append(int64_t job, std::string_view line, LogSource source) const {
  std::error_code ignored;
  fs::create_directories(folder_, ignored);
  const int64_t size = SizeOf(Path(job));
  const bool is_full = source == LogSource::kWorker && size > kJobLogBytesMax;
  if (is_full) return;
  std::string text = LineOf(line);
  const int64_t end = size + std::ssize(text);
  if (source == LogSource::kWorker && end > kJobLogBytesMax) text += std::string(kCut) + "\n";
  std::ofstream(Path(job), std::ios::binary | std::ios::app) << text;
}

JobLogPart JobLogs::Read(int64_t job, int64_t after) const {
  JobLogPart part = {.text = {}, .next = after};
  std::ifstream in(Path(job), std::ios::binary);
  if (!in || after >= SizeOf(Path(job))) return part;
  in.seekg(after);
  part.text.resize(static_cast<size_t>(kPartBytesMax));
  in.read(part.text.data(), kPartBytesMax);
  part.text.resize(static_cast<size_t>(in.gcount()));
  // A line that is still being written comes with the next part.
  part.text.resize(part.text.rfind('\n') + 1);
  part.next = after + std::ssize(part.text);
  return part;
}

int64_t JobLogs::Sweep(const std::function<bool(int64_t job)>& is_kept, bool is_dry) const {
  int64_t count = 0;
  std::error_code error;
  for (fs::directory_iterator file(folder_, error), end; !error && file != end;
       file.increment(error)) {
    const std::optional<int64_t> job = JobOf(file->path());
    if (!job || is_kept(*job)) continue;
    ++count;
    std::error_code ignored;  // the next sweep tries again
    if (!is_dry) fs::remove(file->path(), ignored);
  }
  return count;
}

}  // namespace pared
