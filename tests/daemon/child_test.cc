#include "daemon/child.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <iterator>
#include <string>
#include <thread>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ChildTest : public testing::Test {
 protected:
  ChildTest() { WriteFile(dir_ / "in", "first\nsecond\n"); }

  ChildSpec Shell(const std::string& script, ChildLimits limits = {}) const {
    return {"/bin/sh", {"-c", script}, dir_ / "in", limits};
  }

  // Waits for the end; the lines go to lines_.
  ChildExit Finish(Child& child) {
    while (!child.Wait(20ms, [&](std::string_view line) { lines_.emplace_back(line); })) {
    }
    return *child.exit();
  }

  TempDir dir_;
  std::vector<std::string> lines_;
};

TEST_F(ChildTest, ReadsItsInputAndGivesItsLines) {
  Child child(Shell("read a; read b; echo $b; echo $a; exit 3"));
  const ChildExit exit = Finish(child);
  EXPECT_EQ(exit.code, 3);
  EXPECT_EQ(exit.signal, 0);
  EXPECT_THAT(lines_, ElementsAre("second", "first"));
}

TEST_F(ChildTest, JoinsALineThatComesInPiecesAndDropsOneWithoutEnd) {
  Child child(Shell("printf ab; sleep 0.1; printf 'cd\\nrest'"));
  Finish(child);
  EXPECT_THAT(lines_, ElementsAre("abcd"));
}

TEST_F(ChildTest, DropsALineBeyondTheLimit) {
  Child child(Shell("head -c 200000 /dev/zero | tr '\\0' x; echo; echo short"));
  Finish(child);
  EXPECT_THAT(lines_, ElementsAre("short"));
}

TEST_F(ChildTest, TellsTheSignalThatKilledIt) {
  Child child(Shell("kill -SEGV $$"));
  EXPECT_EQ(Finish(child).signal, SIGSEGV);
}

TEST_F(ChildTest, KeepsTheEndOfStandardError) {
  Child child(Shell("head -c 5000 /dev/zero | tr '\\0' x >&2; echo last words >&2"));
  Finish(child);
  EXPECT_EQ(child.stderr_tail().size(), 2048u);
  EXPECT_THAT(child.stderr_tail(), testing::EndsWith("xlast words\n"));
}

TEST_F(ChildTest, AProgramThatIsNotThereExitsWith127) {
  Child child({dir_ / "none", {}, dir_ / "in", {}});
  EXPECT_EQ(Finish(child).code, 127);
}

TEST_F(ChildTest, AnInputThatIsNotThereIsAnError) {
  EXPECT_THAT(
      [&] {
        Child({"/bin/true", {}, dir_ / "none", {}});
      },
      ThrowsError(ErrorCode::kUnavailable, "", HasSubstr("none")));
}

// From now on, for this thread and what it starts, as in a container with an old filter.
void DenyCloseRange() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_close_range, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {std::size(filter), filter};
  ASSERT_EQ(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
  ASSERT_NE(::close_range(1000, 1000, 0), 0);
}

TEST_F(ChildTest, HasNoneOfTheFilesThatAreOpenHere) {
  const int open_file = ::open((dir_ / "in").c_str(), O_RDONLY);  // no O_CLOEXEC, as of a library
  ASSERT_GE(open_file, 0);
  const auto look = [&] {
    Child child(Shell("test -e /proc/$$/fd/" + std::to_string(open_file)));
    EXPECT_EQ(Finish(child).code, 1);
  };
  look();
  std::thread([&] {
    DenyCloseRange();
    look();
  }).join();
  ::close(open_file);
}

TEST_F(ChildTest, TakesSignals) {
  Child child(Shell("trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.01; done"));
  while (lines_.empty())
    child.Wait(20ms, [&](std::string_view line) { lines_.emplace_back(line); });
  child.Signal(SIGTERM);
  EXPECT_EQ(Finish(child).code, 0);
  EXPECT_THAT(lines_, ElementsAre("ready", "asked"));
}

TEST_F(ChildTest, BlockedSignalsOfTheParentAreNotItsOwn) {
  sigset_t signals;
  sigset_t before;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, &before);
  Child child(Shell("kill -TERM $$; sleep 5"));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(Finish(child).signal, SIGTERM);
}

TEST_F(ChildTest, CpuTimeIsLimited) {
  Child child(Shell("while :; do :; done", {.cpu_s = 1}));
  EXPECT_THAT(Finish(child).signal, testing::AnyOf(SIGXCPU, SIGKILL));
}

TEST_F(ChildTest, FilesAreLimited) {
  Child child(Shell("exec head -c 3000000 /dev/zero > " + (dir_ / "big").string(), {.file_mb = 1}));
  const ChildExit exit = Finish(child);
  EXPECT_TRUE(exit.signal == SIGXFSZ || exit.code != 0);
  EXPECT_LE(std::filesystem::file_size(dir_ / "big"), size_t{1} << 20);
}

TEST_F(ChildTest, ResidentBytesGrowWithWhatItHolds) {
  // The shell keeps 32 MB in a variable.
  Child child(Shell("x=$(head -c 32000000 /dev/zero | tr '\\0' x); echo ready; read y; sleep 5"));
  while (lines_.empty())
    child.Wait(20ms, [&](std::string_view line) { lines_.emplace_back(line); });
  EXPECT_GT(child.ResidentBytes(), 30'000'000);
}

TEST_F(ChildTest, IsKilledWithItsObject) {
  const auto begin = std::chrono::steady_clock::now();
  { Child child(Shell("trap '' TERM; sleep 60")); }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
}

}  // namespace
}  // namespace pared
