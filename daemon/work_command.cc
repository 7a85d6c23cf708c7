// `pared work`: the process around Work().

#include <signal.h>
#include <tbb/global_control.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <istream>
#include <iterator>
#include <mutex>
#include <ostream>

#include "base/check.h"
#include "config/job_spec.h"
#include "daemon/confine.h"
#include "daemon/worker.h"

namespace pared {
namespace {

constexpr std::chrono::milliseconds kReportInterval{100};

// SIGTERM stays blocked and pending: no handler and no flag are needed to ask whether it has come.
void BlockTermination() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  PARED_CHECK(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
}

bool IsTerminationPending() {
  sigset_t pending;
  sigemptyset(&pending);
  sigpending(&pending);
  return sigismember(&pending, SIGTERM) == 1;
}

// Writes progress lines, at most one an interval besides first and last lines of a step.
class ProgressWriter {
 public:
  explicit ProgressWriter(std::ostream& out) : out_(out) {}

  void Write(const Json& line) {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    const double fraction = line.at("fraction").get<double>();
    if (fraction > 0 && fraction < 1 && now - last_ < kReportInterval) return;
    last_ = now;
    out_ << DumpJson(line) << std::endl;
  }

 private:
  std::ostream& out_;  // guarded by mutex_, as is the time of the last line
  std::mutex mutex_;
  std::chrono::steady_clock::time_point last_;
};

// Writes aside and renames: the file is whole or not there.
void WriteResult(const WorkResult& result, const std::filesystem::path& path) {
  const std::filesystem::path aside = path.string() + ".part";
  std::ofstream out(aside, std::ios::binary | std::ios::trunc);
  out << DumpJson(WriteFields(result));
  out.close();
  if (!out) throw Error(ErrorCode::kUnavailable, "cannot write", aside.string());
  std::filesystem::rename(aside, path);
}

// Read: the model's folder, for tensors that it keeps beside itself, and the datasets. Write: the
// job's folder and the cache of this model's results.
Json ConfineTo(const WorkOrder& order, const std::filesystem::path& folder) {
  if (!order.confine) return "off";
  Confinement confinement;
  confinement.readable.push_back(std::filesystem::path(order.model).parent_path());
  for (const std::string& dataset : {order.calibration, order.evaluation}) {
    if (!dataset.empty()) confinement.readable.push_back(dataset);
  }
  confinement.writable.push_back(folder);
  if (!order.cache.empty()) confinement.writable.push_back(order.cache);
  return Confine(confinement);
}

}  // namespace

void RunWorker(const std::filesystem::path& folder, std::istream& in, std::ostream& out) {
  BlockTermination();
  const std::string text(std::istreambuf_iterator<char>(in), {});
  WorkOrder order;
  ReadFields(ParseJson(text), "", order);
  const JobSpec spec = ReadJobSpec(order.spec);
  const Json confinement = ConfineTo(order, folder);  // before the first thread and the model
  const auto write = [&](WorkResult result, const std::string& file) {
    result.machine["confinement"] = confinement;
    WriteResult(result, folder / file);
  };
  const auto write_all = [&](const WorkResult& result) { write(result, "result.json"); };
  const auto keep = [&](const WorkResult& one) { write(one, one.runs.at(0).chain + ".json"); };
  // Timed runs may use more threads than the graph; a job never starts more than it names.
  const tbb::global_control threads(
      tbb::global_control::max_allowed_parallelism,
      static_cast<size_t>(std::max(order.threads, spec.evaluate.threads)));
  ProgressWriter progress(out);
  const WorkContext context = {folder, IsTerminationPending,
                               [&](const Json& line) { progress.Write(line); }, write_all, keep};
  write_all(Work(order, context));
}

}  // namespace pared
