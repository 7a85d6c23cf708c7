// `pare`: the process boundary for errors.

#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "client/cli.h"

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const pared::Terminal terminal = pared::OpenTerminal(std::cout, std::cerr);
  try {
    return pared::RunCommandLine(arguments, terminal);
  } catch (const pared::Error& error) {
    return pared::Fail(arguments, terminal, error);
  } catch (const std::exception& error) {
    return pared::Fail(arguments, terminal, {pared::ErrorCode::kInternal, error.what()});
  }
}
