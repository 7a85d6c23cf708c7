// Times of queries over a long history, generated: 100,000 runs of 10,000 jobs over 40 models.
//
//   store_bench [RUNS] [REPEATS] [FOLDER]
//
// Fills FOLDER/pared.db where it holds no history of that length yet (a temporary folder where it
// is not given), then asks each question REPEATS times and prints the median, by the clock and of
// the processor, and the first time, when columns may have to be read. The numbers of a run are
// what such runs look like: sizes and accuracies of a trade-off with noise, some missing, some
// failed.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "storage/store.h"

namespace pared {
namespace {

constexpr int kModels = 40;
constexpr int kRunsOfJob = 10;
constexpr double kMissingShare = 0.02;
constexpr double kFailedShare = 0.01;

class History {
 public:
  explicit History(Store& store) : store_(store) {}

  void Fill(int64_t run_count) {
    for (int64_t made = store_.Counts().runs; made < run_count; made += kRunsOfJob) AddJob();
  }

 private:
  double Uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random_);
  }

  RunRecord Baseline(const std::string& model, const std::string& experiment) {
    RunRecord run;
    run.experiment = experiment;
    run.model = model;
    run.chain = "baseline";
    run.steps = Json::array();
    run.reports = Json::array({{{"pass", "evaluate"}, {"report", {{"samples", 5000}}}}});
    run.machine = {{"cpu", "Bench CPU"}, {"isa", "avx512vnni"}, {"version", "0.1.0"}};
    top1_ = Uniform(0.7, 0.95);
    size_ = std::exp(Uniform(10, 18));
    latency_ = size_ / 1e6 * Uniform(0.5, 2);
    run.metrics = Metrics(1, 1, 0);
    return run;
  }

  // Some thirty numbers, as the evaluator gives.
  std::map<std::string, double> Metrics(double size_ratio, double latency_ratio, double drop) {
    std::map<std::string, double> metrics = {{"size_bytes", size_ * size_ratio},
                                             {"size_compressed_bytes", size_ * size_ratio * 0.8},
                                             {"size_ratio", size_ratio},
                                             {"latency_ratio", latency_ratio},
                                             {"sparsity", 1 - size_ratio},
                                             {"sqnr_db", 40 - 300 * drop},
                                             {"cosine", 1 - drop},
                                             {"agreement", 1 - 2 * drop},
                                             {"int8_weight_share", Uniform(0, 1)},
                                             {"int8_mac_share", Uniform(0, 1)},
                                             {"peak_activation_bytes", size_ / 4}};
    for (const char* name : {"mean", "p50", "p90", "p99", "min"}) {
      metrics[std::string("latency_ms_") + name] = latency_ * latency_ratio * Uniform(0.95, 1.05);
    }
    if (Uniform(0, 1) > kMissingShare) metrics["top1"] = top1_ - drop;
    return metrics;
  }

  RunRecord Chain(const RunRecord& baseline, int number) {
    RunRecord run = baseline;
    const double sparsity = Uniform(0.3, 0.95);
    const bool is_int8 = Uniform(0, 1) < 0.7;
    run.chain = "c" + std::to_string(number);
    run.steps =
        Json::array({{{"pass", "magnitude_prune"}, {"sparsity", sparsity}, {"pattern", "2x1"}}});
    if (is_int8) run.steps.push_back({{"pass", "quantize_int8"}, {"granularity", "per_channel"}});
    Json layers = Json::array();
    for (int i = 0; i < 12; ++i)
      layers.push_back({{"node", "conv_" + std::to_string(i)}, {"sparsity", sparsity}});
    run.reports = Json::array({{{"pass", "magnitude_prune"}, {"report", {{"changed", layers}}}}});
    const double drop = std::max(0.0, std::pow(sparsity, 6) * 0.1 + Uniform(-0.01, 0.02));
    run.metrics = Metrics((1 - sparsity * 0.8) * (is_int8 ? 0.27 : 1),
                          (1 - sparsity * 0.6) * (is_int8 ? 0.4 : 1), drop);
    run.artifact = std::string(56, 'a') + std::to_string(10'000'000 + random_() % 80'000'000);
    if (Uniform(0, 1) < kFailedShare)
      run.error = {{"code", "degraded"}, {"message", "collapsed"}, {"where", run.chain}};
    return run;
  }

  void AddJob() {
    const std::string model = "model-" + std::to_string(random_() % kModels);
    const std::string experiment = "night-" + std::to_string(random_() % 100);
    store_.Submit({{"model", model}, {"experiment", experiment}, {"chains", Json::array()}});
    const Job job = *store_.Claim({});
    std::vector<RunRecord> runs = {Baseline(model, experiment)};
    for (int i = 1; i < kRunsOfJob; ++i) runs.push_back(Chain(runs.front(), i));
    store_.Finish(job.id, JobState::kSucceeded, nullptr, runs);
    if (job.id % 50 != 0) return;
    RunChange change;
    change.tags["keep"] = "yes";
    store_.ChangeRun(job.id * kRunsOfJob, change);
  }

  Store& store_;
  std::mt19937_64 random_{7};
  double top1_ = 0, size_ = 0, latency_ = 0;
};

struct Question {
  std::string name;
  std::function<int64_t()> ask;  // gives a count, to be printed
};

// Of this thread alone: what a busy machine takes away does not count.
double CpuMs() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

void Measure(const Question& question, int repeats) {
  std::vector<double> times, cpu_times;
  int64_t answer = 0;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const double cpu_begin = CpuMs();
    answer = question.ask();
    cpu_times.push_back(CpuMs() - cpu_begin);
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    times.push_back(took.count());
  }
  const double first = times.front();
  std::ranges::sort(times);
  std::ranges::sort(cpu_times);
  std::printf("%-68s %9.2f %9.2f %9.2f %9ld\n", question.name.c_str(), times[times.size() / 2],
              cpu_times[times.size() / 2], first, static_cast<long>(answer));
}

RunQuery Filtered(const std::string& filter, std::vector<SortKey> sort = {}) {
  RunQuery query;
  query.filter = filter;
  query.sort = std::move(sort);
  return query;
}

void MeasurePages(const Store& store, int repeats) {
  const auto page = [&](const std::string& name, const RunQuery& query) {
    Measure({"page: " + name, [&] { return static_cast<int64_t>(store.Runs(query).size()); }},
            repeats);
  };
  const std::string issue = "model = \"model-7\" and top1_drop < 0.01 and size_ratio <= 0.3";
  page("newest first", Filtered("", {{"id", true}}));
  page(issue, Filtered(issue));
  page("the same, -top1", Filtered(issue, {{"top1", true}}));
  page("the same, -top1,size_bytes", Filtered(issue, {{"top1", true}, {"size_bytes", false}}));
  page("size_ratio <= 0.1, all models", Filtered("size_ratio <= 0.1"));
  page("size_ratio <= 0.1, all models, by size_bytes",
       Filtered("size_ratio <= 0.1", {{"size_bytes", false}}));
  page("all runs, by latency_ms_p50", Filtered("", {{"latency_ms_p50", false}}));
  page("top1_drop < 0.001, all models, by size_bytes",
       Filtered("top1_drop < 0.001", {{"size_bytes", false}}));
  page("tags.keep = \"yes\"", Filtered("tags.keep = \"yes\""));
  page("passes.magnitude_prune.sparsity > 0.9", Filtered("passes.magnitude_prune.sparsity > 0.9"));
  RunQuery deep = Filtered("size_ratio <= 0.3");
  deep.after = 90'000;
  page("size_ratio <= 0.3, after run 90,000", deep);
  RunQuery experiment = Filtered("size_ratio <= 0.3", {{"top1", true}});
  experiment.experiment = "night-42";
  page("one experiment, size_ratio <= 0.3, -top1", experiment);
}

void MeasureCounts(const Store& store, int repeats) {
  for (const std::string filter :
       {"", "model = \"model-7\"", "model = \"model-7\" and top1_drop < 0.01 and size_ratio <= 0.3",
        "size_ratio <= 0.3", "top1_drop < 0.01", "tags.keep = \"yes\"", "created_ms > 0",
        "error is null"}) {
    Measure({"count: " + filter, [&] { return store.CountRuns(Filtered(filter)); }}, repeats);
  }
}

void MeasureFronts(const Store& store, int repeats) {
  const std::vector<Objective> objectives = {
      {"size_bytes", false}, {"top1", true}, {"latency_ms_p50", false}};
  const auto front = [&](const std::string& name, const FrontQuery& query) {
    Measure(
        {"front: " + name, [&] { return static_cast<int64_t>(store.FrontOf(query).runs.size()); }},
        repeats);
  };
  front("3 objectives, all runs", {Filtered(""), objectives});
  front("3 objectives, one model", {Filtered("model = \"model-7\""), objectives});
  front("3 objectives, size_ratio <= 0.3", {Filtered("size_ratio <= 0.3"), objectives});
  front("2 objectives, all runs", {Filtered(""), {objectives[0], objectives[1]}});
}

}  // namespace
}  // namespace pared

int main(int argc, char** argv) {
  const int64_t run_count = argc > 1 ? std::atoll(argv[1]) : 100'000;
  const int repeats = argc > 2 ? std::atoi(argv[2]) : 9;
  const bool is_temporary = argc < 4;
  std::filesystem::path folder = is_temporary ? "" : argv[3];
  if (is_temporary) {
    std::string pattern = (std::filesystem::temp_directory_path() / "store-bench-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) return 1;
    folder = pattern;
  }
  std::filesystem::create_directories(folder);
  {
    pared::Store store(folder / "pared.db", {.queued_max = 10});
    const auto begin = std::chrono::steady_clock::now();
    pared::History(store).Fill(run_count);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("%ld runs; filled in %.1f s\n%-68s %9s %9s %9s %9s\n",
                static_cast<long>(store.Counts().runs), took.count(), "question", "ms, p50",
                "CPU, p50", "ms, first", "answer");
    pared::MeasurePages(store, repeats);
    pared::MeasureCounts(store, repeats);
    pared::MeasureFronts(store, repeats);
  }
  if (is_temporary) std::filesystem::remove_all(folder);
  return 0;
}
