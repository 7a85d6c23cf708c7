// A child process under limits: started, listened to, ended.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pared {

struct ChildLimits {
  int64_t memory_mb = 0;  // 0: none; of data segments, as a backstop: see ResidentBytes
  int64_t cpu_s = 0;      // 0: none; over all threads
  int64_t file_mb = 0;    // 0: none; of each file it writes
};

struct ChildSpec {
  std::filesystem::path program;
  std::vector<std::string> arguments;  // without the program's own name
  std::filesystem::path input;         // a file: its standard input
  ChildLimits limits;
};

struct ChildExit {
  int code = 0;    // where signal is 0
  int signal = 0;  // that killed it; 0: it exited
};

using LineSink = std::function<void(std::string_view line)>;

// Not thread-safe. The child gets SIGKILL when the daemon dies. Linux sends it when the thread that
// made the child ends, so that thread must stay until the child has ended.
class Child {
 public:
  // Throws kUnavailable where no process can be made.
  explicit Child(const ChildSpec& spec);
  ~Child();  // kills it where it still runs
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Waits up to `timeout` for output or the end, hands each whole line of standard output to
  // `on_line` and of standard error to `on_error_line`, and keeps the last bytes of the latter.
  // Returns whether the child has ended.
  bool Wait(
      std::chrono::milliseconds timeout, const LineSink& on_line,
      const LineSink& on_error_line = [](std::string_view) {});

  // Set once Wait has returned true.
  const std::optional<ChildExit>& exit() const { return exit_; }

  void Signal(int signal) const;

  // Memory that is the child's own: no file mappings, which the system can take back.
  int64_t ResidentBytes() const;

  // The end of its standard error, for the message when it crashed.
  const std::string& stderr_tail() const { return stderr_tail_; }

 private:
  bool ReadAll(int& fd, const std::function<void(std::string_view bytes)>& on_bytes);
  static void TakeLines(std::string& begun, std::string_view bytes, const LineSink& on_line);
  void Reap(bool wait);

  pid_t pid_ = -1;
  int stdout_ = -1, stderr_ = -1;
  std::string line_, error_line_;  // begun and not yet ended
  std::string stderr_tail_;
  std::optional<ChildExit> exit_;
};

}  // namespace pared
