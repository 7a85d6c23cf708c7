// The command line of `pare`.

#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "client/terminal.h"

namespace pared {

// Reads the arguments after the program's name and does what they say. Gives the exit code; wrong
// usage is told on terminal.err and gives kExitRefused. Throws Error.
int RunCommandLine(const std::vector<std::string>& arguments, Terminal terminal);

// The same, with an Error told on terminal.err and as the exit code that stands for it.
int Fail(const std::vector<std::string>& arguments, const Terminal& terminal, const Error& error);

}  // namespace pared
