#include <ostream>

#include "api/http_server.h"
#include "config/settings.h"
#include "daemon/commands.h"
#include "daemon/serve.h"
#include "storage/maintenance.h"

namespace pared {
namespace {

void RunServe(const std::vector<std::string>& arguments, std::ostream& out) {
  const Start start = ReadCommandLine(arguments);
  switch (start.action) {
    case StartAction::kServe:
      return Serve(arguments);
    case StartAction::kHelp:
      out << HelpText();
      return;
    case StartAction::kVersion:
      out << "pared " << PARED_VERSION << "\n";
      return;
    case StartAction::kCheckConfig:
      CheckCertificate(start.settings);
      out << WriteFields(start.settings).dump(2) << "\n";
      return;
  }
}

template <Json (*kFlags)()>
std::string FlagsText() {
  std::string text;
  for (const Json& field : kFlags()) text += FlagHelp(field);
  return text;
}

constexpr Command kCommands[] = {
    {"serve", "[flags]", "the daemon; also what runs without a command", RunServe, HelpText},
    {"optimize", "MODEL --out=FILE [flags]", "a chain of passes over a model file", RunOptimize,
     FlagsText<OptimizeFlags>},
    {"evaluate", "MODEL [flags]", "accuracy, size and latency of a model file", RunEvaluate,
     FlagsText<EvaluateFlags>},
    {"bench", "MODEL [flags]", "where the time goes, layer by layer", RunBench,
     FlagsText<BenchFlags>},
    {"pack", "MODEL --out=FILE", "one small file of a model whose weights are mostly zero", RunPack,
     FlagsText<PackFlags>},
    {"unpack", "FILE [--out=FOLDER]", "the files again, byte for byte", RunUnpack,
     FlagsText<UnpackFlags>},
    {"gc", "[--dry] [flags of serve]", "deletes what the settings keep no longer; --dry counts it",
     [](const auto& arguments, std::ostream& out) { RunGc(arguments, out); }, HelpText},
    {"backup", "FILE [flags of serve]", "copies the store, while a daemon may use it",
     [](const auto& arguments, std::ostream& out) { RunBackup(arguments, out); }, HelpText},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace pared
