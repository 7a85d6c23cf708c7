// What a worker gives up before it opens a model that somebody else made.

#pragma once

#include <filesystem>
#include <vector>

#include "config/fields.h"

namespace pared {

struct Confinement {
  std::vector<std::filesystem::path> readable;  // files and folders, with all beneath
  std::vector<std::filesystem::path> writable;  // folders
};

// For this process, from here on and for good: no new privileges; no network, no other program, no
// new process, no ptrace, mount, module or key call (seccomp: they fail with EPERM); files beneath
// the given places only (Landlock). Threads and file IO stay. Call it before any thread starts.
//
// Returns what took hold, {"no_new_privs": true, "seccomp": true, "landlock": 3}, the last the ABI
// of the kernel: a kernel without one of them gives false or 0 and leaves the others in force.
Json Confine(const Confinement& confinement);

}  // namespace pared
