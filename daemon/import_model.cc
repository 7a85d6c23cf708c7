#include "daemon/import_model.h"

#include <sys/resource.h>

#include <chrono>

#include "base/error.h"
#include "daemon/arguments.h"
#include "daemon/child.h"
#include "daemon/confine.h"
#include "daemon/work_order.h"
#include "model/onnx.h"
#include "model/tflite.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kPollInterval{50};
constexpr const char* kFileName = "model.onnx";
constexpr int64_t kReservedMb = 512;  // heaps and stacks that are reserved and never touched

struct Options {
  std::string model, dir;
  bool confine = true;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Required();
  f.Text("model", o.model, TextRule::kAny, "The model to read.");
  f.Required();
  f.Text("dir", o.dir, TextRule::kAny, "Where it is written to.");
  f.Flag("confine", o.confine, "Give up all rights that the work does not need.");
}

// Why a process that has ended made no model; null: it did.
Json FindFailure(const Child& child, const Json& said) {
  if (said.is_object() && said.contains("error")) return said.at("error");
  const ChildExit& exit = *child.exit();
  if (exit.signal == 0 && exit.code == 0) return nullptr;
  return ErrorJson(Error(ErrorCode::kInternal,
                         exit.signal != 0
                             ? "reading it was ended by signal " + std::to_string(exit.signal)
                             : "reading it ended with exit code " + std::to_string(exit.code)));
}

// Why it must not go on; null: it may.
Json FindExcess(const Child& child, const ImportSettings& settings,
                std::chrono::steady_clock::time_point begin) {
  std::string limit;
  if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(settings.time_s)) {
    limit = std::to_string(settings.time_s) + " s";
  } else if (child.ResidentBytes() > settings.memory_mb << 20) {
    limit = std::to_string(settings.memory_mb) + " MB";
  }
  if (limit.empty()) return nullptr;
  return ErrorJson(Error(ErrorCode::kUnavailable, "reading it took more than " + limit));
}

}  // namespace

ImportedModel ImportModel(const fs::path& file, Artifacts& artifacts,
                          const ImportSettings& settings, std::stop_token stop) {
  const TemporaryFolder folder(artifacts.IncomingDir());
  Child child({settings.program,
               {"import", "--model", file.string(), "--dir", folder.path().string(),
                settings.confine ? "--confine=true" : "--confine=false"},
               "/dev/null",
               {.memory_mb = settings.memory_mb + kReservedMb, .cpu_s = settings.time_s + 1}});
  Json said;
  const auto begin = std::chrono::steady_clock::now();
  while (!child.Wait(kPollInterval, [&](std::string_view line) { said = ParseJson(line); })) {
    if (stop.stop_requested()) throw Error(ErrorCode::kCancelled, "the daemon stops");
    // What is left of the process ends with this scope.
    if (Json excess = FindExcess(child, settings, begin); !excess.is_null()) {
      return {std::nullopt, std::move(excess)};
    }
  }
  if (Json failure = FindFailure(child, said); !failure.is_null()) {
    return {std::nullopt, std::move(failure)};
  }
  return {artifacts.Put(folder.path() / kFileName), nullptr};
}

void RunImport(const std::vector<std::string>& arguments) {
  const Options options = ReadArguments<Options>(arguments);
  // Jobs that are being timed come first.
  ::setpriority(PRIO_PROCESS, 0, 19);
  if (options.confine) {
    Confine({.readable = {fs::path(options.model).parent_path()}, .writable = {options.dir}});
  }
  SaveOnnx(LoadModel(options.model), fs::path(options.dir) / kFileName);
}

}  // namespace pared
