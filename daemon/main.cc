// The program: the daemon, the worker that it starts, and the commands. The process boundary for
// errors.

#include <malloc.h>

#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "config/escaped_text.h"
#include "daemon/commands.h"
#include "daemon/import_model.h"
#include "daemon/worker.h"

namespace pared {
namespace {

bool IsHelp(const std::string& argument) { return argument == "--help" || argument == "-h"; }

// Passes allocate matrices of megabytes over and over. Given back to the system each time, as
// malloc does by default above 128 KB to 32 MB, every page of them is mapped and zeroed anew: 5 %
// of quantize_int8 on ResNet-50, whose peak is the same without.
void KeepFreedMemory() {
  constexpr int kBytes = 256 << 20;
  mallopt(M_MMAP_THRESHOLD, kBytes);
  mallopt(M_TRIM_THRESHOLD, kBytes);
}

void WorkIn(const std::vector<std::string>& arguments) {
  if (arguments.size() != 2 || arguments[0] != "--dir") {
    throw Error(ErrorCode::kInvalidArgument, "usage: pared work --dir FOLDER < ORDER", "work");
  }
  RunWorker(arguments[1], std::cin, std::cout);
}

void WriteHelp(std::ostream& out) {
  out << "pared: prunes and quantizes ONNX models, measures the results and keeps them.\n\n";
  for (const Command& command : Commands()) {
    out << "  pared " << command.name << " " << command.usage << "\n      " << command.summary
        << "\n";
  }
  out << "\n  pared COMMAND --help         what its flags are\n"
         "  pared --describe-passes      what a chain may name, as Markdown\n"
         "  pared --version              the version\n";
}

[[noreturn]] void RefuseCommand(const std::string& name) {
  std::string names;
  for (const Command& command : Commands()) names += std::string(command.name) + ", ";
  throw Error(ErrorCode::kInvalidArgument,
              "no such command; there are " + names + "and --help tells of them", name);
}

void RunNamed(const std::string& name, const std::vector<std::string>& arguments) {
  const auto command =
      std::ranges::find_if(Commands(), [&](const Command& c) { return name == c.name; });
  if (command == Commands().end()) RefuseCommand(name);
  if (std::ranges::none_of(arguments, IsHelp)) return command->run(arguments, std::cout);
  std::cout << "pared " << name << " " << command->usage << ": " << command->summary << "\n\n"
            << command->flags();
}

void RunCommand(std::vector<std::string> arguments) {
  const std::string first = arguments.empty() ? "" : arguments.front();
  if (IsHelp(first)) return WriteHelp(std::cout);
  if (first == "--describe-passes") return DescribePasses(std::cout);
  if (first.empty() || first.starts_with("--")) return RunNamed("serve", arguments);
  arguments.erase(arguments.begin());
  if (first != "serve") KeepFreedMemory();
  if (first == "work") return WorkIn(arguments);
  if (first == "import") return RunImport(arguments);
  RunNamed(first, arguments);
}

// The error for whoever reads: a worker's daemon reads the last line of standard output.
int Fail(const Error& error, bool is_worker) {
  if (is_worker) {
    std::cout << DumpJson({{"error", ErrorJson(error)}}) << std::endl;
  } else {
    std::cerr << "pared: " << Escaped(error.what()) << "\n";
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
    const bool is_job = is_worker && arguments.front() == "work";
    const std::string hint = is_job ? ": the job's limit, limits.memory_mb, is too low" : "";
    return pared::Fail({pared::ErrorCode::kUnavailable, "out of memory" + hint}, is_worker);
  } catch (const std::exception& error) {
    return pared::Fail({pared::ErrorCode::kInternal, error.what()}, is_worker);
  }
}
