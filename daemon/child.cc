#include "daemon/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/check.h"
#include "base/error.h"

namespace pared {
namespace {

constexpr size_t kLineBytesMax = 64 * 1024;
constexpr size_t kStderrTailBytes = 2048;
// The shadow memory of the sanitizers counts as data: terabytes of addresses, hardly touched.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kLimitsData = false;
#else
constexpr bool kLimitsData = true;
#endif

[[noreturn]] void ThrowErrno(const std::string& what) {
  throw Error(ErrorCode::kUnavailable, what + ": " + std::strerror(errno));
}

void CloseFd(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

// Ends are closed on exec; the child duplicates its own onto 1 and 2.
struct Pipe {
  Pipe() {
    if (::pipe2(ends, O_CLOEXEC) != 0) ThrowErrno("cannot make a pipe");
  }
  ~Pipe() {
    CloseFd(ends[0]);
    CloseFd(ends[1]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int TakeReadEnd() {
    ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return std::exchange(ends[0], -1);
  }

  int ends[2] = {-1, -1};
};

void Limit(decltype(RLIMIT_CORE) resource, int64_t value) {
  const rlim_t bound = static_cast<rlim_t>(value);
  const struct rlimit limit = {bound, bound};
  ::setrlimit(resource, &limit);
}

// What other threads have open by way of libraries, which set no O_CLOEXEC: sockets of clients,
// uploads on their way. One by one before Linux 5.9, and where a container's filter denies the
// call.
void CloseFrom(int first) {
  if (::close_range(static_cast<unsigned>(first), ~0U, 0) == 0) return;
  constexpr rlim_t kFilesMax = 1 << 20;
  struct rlimit limit = {kFilesMax, kFilesMax};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const int end = static_cast<int>(std::min(limit.rlim_cur, kFilesMax));
  for (int fd = first; fd < end; ++fd) ::close(fd);
}

// What the child does between fork and exec: async-signal-safe calls only, since other threads of
// the daemon may have held any lock.
[[noreturn]] void Become(const char* const* argv, int input, const Pipe& out, const Pipe& err,
                         const ChildLimits& limits, pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // the daemon died before the line above
  ::setpgid(0, 0);                          // a terminal's Ctrl-C is for the daemon
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  constexpr int64_t kMegabyte = int64_t{1} << 20;
  Limit(RLIMIT_CORE, 0);
  if (kLimitsData && limits.memory_mb > 0) Limit(RLIMIT_DATA, limits.memory_mb * kMegabyte);
  if (limits.cpu_s > 0) Limit(RLIMIT_CPU, limits.cpu_s);
  if (limits.file_mb > 0) Limit(RLIMIT_FSIZE, limits.file_mb * kMegabyte);
  if (::dup2(input, 0) < 0 || ::dup2(out.ends[1], 1) < 0 || ::dup2(err.ends[1], 2) < 0) {
    ::_exit(127);
  }
  CloseFrom(3);
  ::execv(argv[0], const_cast<char* const*>(argv));
  ::_exit(127);
}

}  // namespace

Child::Child(const ChildSpec& spec) {
  std::vector<const char*> argv = {spec.program.c_str()};
  for (const std::string& argument : spec.arguments) argv.push_back(argument.c_str());
  argv.push_back(nullptr);
  Pipe out;
  Pipe err;
  int input = ::open(spec.input.c_str(), O_RDONLY | O_CLOEXEC);
  if (input < 0) ThrowErrno("cannot open " + spec.input.string());
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) Become(argv.data(), input, out, err, spec.limits, parent);
  CloseFd(input);
  if (pid_ < 0) ThrowErrno("cannot start a process");
  stdout_ = out.TakeReadEnd();
  stderr_ = err.TakeReadEnd();
}

Child::~Child() {
  if (!exit_) {
    Signal(SIGKILL);
    Reap(true);
  }
  CloseFd(stdout_);
  CloseFd(stderr_);
}

bool Child::Wait(std::chrono::milliseconds timeout, const LineSink& on_line,
                 const LineSink& on_error_line) {
  PARED_CHECK(!exit_);
  std::array<pollfd, 2> fds = {{{stdout_, POLLIN, 0}, {stderr_, POLLIN, 0}}};
  ::poll(fds.data(), fds.size(), static_cast<int>(timeout.count()));
  // Reaped first: what it wrote before its end is then in the pipes and is read below.
  Reap(false);
  const auto keep_tail = [&](std::string_view bytes) {
    TakeLines(error_line_, bytes, on_error_line);
    stderr_tail_ += bytes;
    if (stderr_tail_.size() > kStderrTailBytes) {
      stderr_tail_.erase(0, stderr_tail_.size() - kStderrTailBytes);
    }
  };
  const bool out_open =
      ReadAll(stdout_, [&](std::string_view bytes) { TakeLines(line_, bytes, on_line); });
  const bool err_open = ReadAll(stderr_, keep_tail);
  // Both ends closed and no exit yet: the process is about to end, or hides; look again soon.
  if (!exit_ && !out_open && !err_open) ::usleep(1000);
  return exit_.has_value();
}

// Reads what is there. Returns whether the pipe is still open.
bool Child::ReadAll(int& fd, const std::function<void(std::string_view bytes)>& on_bytes) {
  std::array<char, 16 * 1024> buffer;
  while (fd >= 0) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got > 0) {
      on_bytes({buffer.data(), static_cast<size_t>(got)});
    } else if (got < 0 && errno == EINTR) {
      continue;
    } else if (got < 0 && errno == EAGAIN) {
      return true;
    } else {
      CloseFd(fd);
    }
  }
  return false;
}

void Child::TakeLines(std::string& begun, std::string_view bytes, const LineSink& on_line) {
  for (size_t end = bytes.find('\n'); end != std::string_view::npos; end = bytes.find('\n')) {
    begun += bytes.substr(0, end);
    bytes.remove_prefix(end + 1);
    if (begun.size() <= kLineBytesMax) on_line(begun);
    begun.clear();
  }
  // Beyond the limit the rest is not kept: the line will be dropped at its end.
  if (begun.size() <= kLineBytesMax) begun += bytes;
}

void Child::Reap(bool wait) {
  int status = 0;
  if (::waitpid(pid_, &status, wait ? 0 : WNOHANG) != pid_) return;
  exit_ = WIFSIGNALED(status) ? ChildExit{0, WTERMSIG(status)} : ChildExit{WEXITSTATUS(status), 0};
}

void Child::Signal(int signal) const {
  // Until it is reaped the number is the child's, even where it has ended.
  if (!exit_) ::kill(pid_, signal);
}

int64_t Child::ResidentBytes() const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  int64_t kilobytes = 0;
  std::string key;
  while (status >> key) {
    int64_t value = 0;
    if ((key == "RssAnon:" || key == "RssShmem:") && status >> value) kilobytes += value;
    status.ignore(1024, '\n');
  }
  return kilobytes * 1024;
}

}  // namespace pared
