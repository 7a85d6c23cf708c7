// Seccomp holds a list of what is denied, not of what is allowed: the C library and TBB change the
// calls they make from version to version, and a worker that dies of a new futex call helps nobody.
// RLIMIT_NPROC is not used: it counts all processes of the user; the filter forbids new ones.

#include "daemon/confine.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <sanitizer/lsan_interface.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace pared {
namespace {

constexpr int kDenied[] = {
    // The network; a worker speaks through its pipes.
    SCMP_SYS(socket), SCMP_SYS(socketpair), SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen),
    SCMP_SYS(accept), SCMP_SYS(accept4), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg),
    // Other programs and processes; io_uring would go past this filter.
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(fork), SCMP_SYS(vfork), SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_open),
    SCMP_SYS(pidfd_getfd), SCMP_SYS(io_uring_setup), SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    // The machine.
    SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(chroot), SCMP_SYS(unshare),
    SCMP_SYS(setns), SCMP_SYS(move_mount), SCMP_SYS(open_tree), SCMP_SYS(fsopen),
    SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load), SCMP_SYS(reboot), SCMP_SYS(swapon), SCMP_SYS(swapoff), SCMP_SYS(bpf),
    SCMP_SYS(perf_event_open), SCMP_SYS(userfaultfd), SCMP_SYS(keyctl), SCMP_SYS(add_key),
    SCMP_SYS(request_key), SCMP_SYS(open_by_handle_at), SCMP_SYS(acct), SCMP_SYS(quotactl),
    SCMP_SYS(settimeofday), SCMP_SYS(clock_settime), SCMP_SYS(sethostname)};

bool AddRules(scmp_filter_ctx filter) {
  for (const int call : kDenied) {
    if (seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), call, 0) != 0) return false;
  }
  // A clone that makes no thread makes a process. clone3 hides its flags behind a pointer: without
  // it the C library takes clone.
  const scmp_arg_cmp no_thread = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0);
  return seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, no_thread) == 0 &&
         seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) == 0;
}

bool ApplySeccomp() {
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
  if (filter == nullptr) return false;
  const bool is_loaded = AddRules(filter) && seccomp_load(filter) == 0;
  seccomp_release(filter);
  return is_loaded;
}

// The kernel's header on Debian 12 ends before this one, of ABI 3.
constexpr uint64_t kTruncate = uint64_t{1} << 14;
constexpr uint64_t kReadFile = LANDLOCK_ACCESS_FS_READ_FILE;
constexpr uint64_t kRead = kReadFile | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kEveryAccess = (uint64_t{1} << 13) - 1;  // of ABI 1

// A place that is not there needs no rule.
bool AllowBeneath(int ruleset, const std::filesystem::path& path, uint64_t access) {
  const int place = ::open(path.c_str(), O_PATH | O_CLOEXEC);
  if (place < 0) return true;
  struct stat status = {};
  const bool is_folder = ::fstat(place, &status) == 0 && S_ISDIR(status.st_mode);
  landlock_path_beneath_attr rule = {};
  rule.allowed_access = is_folder ? access : access & kReadFile;
  rule.parent_fd = place;
  const bool is_added =
      ::syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) == 0;
  ::close(place);
  return is_added;
}

bool AddPlaces(int ruleset, const Confinement& confinement, uint64_t handled) {
  // What the C library and TBB look at to count processors and to name them.
  for (const char* place : {"/proc/cpuinfo", "/proc/stat", "/proc/self", "/proc/meminfo",
                            "/sys/devices/system", "/sys/fs/cgroup"}) {
    if (!AllowBeneath(ruleset, place, kRead)) return false;
  }
  for (const std::filesystem::path& place : confinement.readable) {
    if (!AllowBeneath(ruleset, place, kRead)) return false;
  }
  for (const std::filesystem::path& place : confinement.writable) {
    if (!AllowBeneath(ruleset, place, handled & ~LANDLOCK_ACCESS_FS_EXECUTE)) return false;
  }
  return true;
}

// The ABI in force; 0: none.
int64_t ApplyLandlock(const Confinement& confinement) {
  const int64_t abi =
      ::syscall(SYS_landlock_create_ruleset, nullptr, size_t{0}, LANDLOCK_CREATE_RULESET_VERSION);
  if (abi < 1) return 0;
  landlock_ruleset_attr attributes = {};
  attributes.handled_access_fs = kEveryAccess | (abi >= 3 ? kTruncate : 0);
  const int ruleset =
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0));
  if (ruleset < 0) return 0;
  const bool is_applied = AddPlaces(ruleset, confinement, attributes.handled_access_fs) &&
                          ::syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
  ::close(ruleset);
  return is_applied ? abi : 0;
}

}  // namespace

Json Confine(const Confinement& confinement) {
#if defined(__SANITIZE_ADDRESS__)
  // Once only: at the end of the process it would need a process of its own.
  __lsan_do_leak_check();
#endif
  const bool no_new_privs = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
  // In this order: the filter stands when the last door is shut, whatever it denies.
  const int64_t landlock = ApplyLandlock(confinement);
  return {{"no_new_privs", no_new_privs}, {"landlock", landlock}, {"seccomp", ApplySeccomp()}};
}

}  // namespace pared
