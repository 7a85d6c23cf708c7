#include "daemon/confine.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <thread>

#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

class ConfineTest : public testing::Test {
 protected:
  ConfineTest() {
    std::filesystem::create_directories(dir_ / "job");
    WriteFile(dir_ / "model", "m");
    WriteFile(dir_ / "secret", "s");
  }

  // What `act` returns in a process of its own, confined to reading "model" and writing in "job".
  // A child that finds less in force than the kernel can do returns 100.
  int Confined(const std::function<int()>& act) const {
    const pid_t child = ::fork();
    if (child == 0) {
      const Json report = Confine({{dir_ / "model"}, {dir_ / "job"}});
      ::_exit(report.at("seccomp") == true && report.at("no_new_privs") == true ? act() : 100);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 200;
  }

  // errno of an open, 0 where it went well.
  static int Open(const std::filesystem::path& path, int flags) {
    return ::open(path.c_str(), flags, 0600) >= 0 ? 0 : errno;
  }

  // Whether this kernel has Landlock: without it the files stay open, and the report says so.
  bool HasLandlock() const {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(Confine({{}, {dir_ / "job"}}).at("landlock") > 0 ? 0 : 1);
    int status = 0;
    ::waitpid(child, &status, 0);
    return WEXITSTATUS(status) == 0;
  }

  TempDir dir_;
};

TEST_F(ConfineTest, HasNoNetwork) {
  EXPECT_EQ(Confined([] { return ::socket(AF_INET, SOCK_STREAM, 0) >= 0 ? 0 : errno; }), EPERM);
  EXPECT_EQ(Confined([] { return ::socket(AF_UNIX, SOCK_STREAM, 0) >= 0 ? 0 : errno; }), EPERM);
}

TEST_F(ConfineTest, StartsNoProgramAndNoProcess) {
  EXPECT_EQ(Confined([] { return ::execl("/bin/true", "true", nullptr), errno; }), EPERM);
  EXPECT_EQ(Confined([] { return ::fork() >= 0 ? 0 : errno; }), EPERM);
}

TEST_F(ConfineTest, StartsThreads) {
  EXPECT_EQ(Confined([] {
              int value = 0;
              std::thread([&] { value = 7; }).join();
              return value;
            }),
            7);
}

TEST_F(ConfineTest, OpensItsOwnFilesAndNoOthers) {
  if (!HasLandlock()) GTEST_SKIP() << "no Landlock in this kernel";
  EXPECT_EQ(Confined([&] { return Open(dir_ / "model", O_RDONLY); }), 0);
  EXPECT_EQ(Confined([&] { return Open(dir_ / "model", O_WRONLY); }), EACCES);
  EXPECT_EQ(Confined([&] { return Open(dir_ / "job" / "new", O_WRONLY | O_CREAT); }), 0);
  EXPECT_EQ(Confined([&] { return Open(dir_ / "secret", O_RDONLY); }), EACCES);
  EXPECT_EQ(Confined([&] { return Open(dir_ / "job" / ".." / "secret", O_RDONLY); }), EACCES);
  EXPECT_EQ(Confined([&] { return Open(dir_ / "new", O_WRONLY | O_CREAT); }), EACCES);
  EXPECT_EQ(Confined([] { return Open("/etc/passwd", O_RDONLY); }), EACCES);
}

}  // namespace
}  // namespace pared
