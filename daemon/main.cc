// The program: the daemon, the worker that it starts, and the commands. The process boundary for
// errors.

#include <iostream>
#include <string>
#include <vector>

#include "api/http_server.h"
#include "base/error.h"
#include "config/settings.h"
#include "daemon/commands.h"
#include "daemon/import_model.h"
#include "daemon/serve.h"
#include "daemon/worker.h"
#include "storage/maintenance.h"

namespace pared {
namespace {

void StartDaemon(const std::vector<std::string>& arguments) {
  const Start start = ReadCommandLine(arguments);
  switch (start.action) {
    case StartAction::kServe:
      Serve(arguments);
      break;
    case StartAction::kHelp:
      std::cout << HelpText() << CommandsHelp();
      break;
    case StartAction::kVersion:
      std::cout << "pared " << PARED_VERSION << "\n";
      break;
    case StartAction::kCheckConfig:
      CheckCertificate(start.settings);
      std::cout << WriteFields(start.settings).dump(2) << "\n";
      break;
  }
}

void WorkIn(const std::vector<std::string>& arguments) {
  if (arguments.size() != 2 || arguments[0] != "--dir") {
    throw Error(ErrorCode::kInvalidArgument, "usage: pared work --dir FOLDER < ORDER", "work");
  }
  RunWorker(arguments[1], std::cin, std::cout);
}

void RunCommand(std::vector<std::string> arguments) {
  const std::string command = arguments.empty() ? "serve" : arguments.front();
  const bool is_named = !command.starts_with("--");
  if (is_named && !arguments.empty()) arguments.erase(arguments.begin());
  if (command == "work") return WorkIn(arguments);
  if (command == "import") return RunImport(arguments);
  if (command == "bench") return RunBench(arguments, std::cout);
  if (command == "optimize") return RunOptimize(arguments, std::cout);
  if (command == "pack") return RunPack(arguments, std::cout);
  if (command == "unpack") return RunUnpack(arguments, std::cout);
  if (command == "evaluate") return RunEvaluate(arguments, std::cout);
  if (command == "gc") return RunGc(arguments, std::cout);
  if (command == "backup") return RunBackup(arguments, std::cout);
  if (command == "--describe-passes") return DescribePasses(std::cout);
  if (is_named && command != "serve") {
    throw Error(ErrorCode::kInvalidArgument,
                "no such command; there are serve, work, optimize, bench, evaluate, pack, unpack, "
                "gc and backup",
                command);
  }
  StartDaemon(arguments);
}

// The error for whoever reads: a worker's daemon reads the last line of standard output.
int Fail(const Error& error, bool is_worker) {
  if (is_worker) {
    std::cout << DumpJson({{"error", ErrorJson(error)}}) << std::endl;
  } else {
    std::cerr << "pared: " << error.what() << "\n";
  }
  return 1;
}

}  // namespace
}  // namespace pared

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool is_worker =
      !arguments.empty() && (arguments.front() == "work" || arguments.front() == "import");
  try {
    pared::RunCommand(arguments);
    return 0;
  } catch (const pared::Error& error) {
    return pared::Fail(error, is_worker);
  } catch (const std::bad_alloc&) {
    return pared::Fail({pared::ErrorCode::kUnavailable, "out of memory"}, is_worker);
  } catch (const std::exception& error) {
    return pared::Fail({pared::ErrorCode::kInternal, error.what()}, is_worker);
  }
}
