// Completion of a command line in bash.

#pragma once

#include <map>
#include <string>
#include <vector>

#include "client/daemon.h"

namespace pared {

// The long options of each command; those of "" stand before any.
using CommandWords = std::map<std::string, std::vector<std::string>>;

// The script that bash reads: source <(pare completion bash).
std::string BashCompletion();

// What the last word of `line` (the words after the program's name; the last may be empty) may
// become. Names of models, datasets, experiments and passes come from the daemon; where none
// answers there are none.
std::vector<std::string> Complete(const Daemon& daemon, const CommandWords& words,
                                  const std::vector<std::string>& line);

}  // namespace pared
