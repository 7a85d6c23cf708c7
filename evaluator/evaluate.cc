#include "evaluator/evaluate.h"

#include <tbb/parallel_for.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>

#include "base/error.h"
#include "evaluator/metrics.h"
#include "evaluator/run_samples.h"
#include "evaluator/scorer.h"
#include "evaluator/scores.h"
#include "model/onnx.h"

namespace pared {
namespace {

constexpr int64_t kWarmupRuns = 3;

void ThrowIfCancelled(const EvaluateContext& context) {
  if (context.cancelled()) throw Error(ErrorCode::kCancelled, "the evaluation was cancelled");
}

// The place among the model's outputs of the one that the dataset's task measures.
size_t MeasuredOutput(const Executor& executor, const Dataset& dataset) {
  const std::vector<std::string>& names = dataset.task().output;
  if (names.empty()) return 0;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(executor.outputs(), name, &ValueInfo::name);
    if (found == executor.outputs().end()) continue;
    return static_cast<size_t>(found - executor.outputs().begin());
  }
  throw Error(ErrorCode::kInvalidArgument,
              "dataset " + dataset.name() + " measures \"" + names.front() +
                  "\", which is no output of the model",
              "/output");
}

// Hands the measured output of each sample to `visit`, as RunSamples does.
void RunMeasured(const Executor& executor, const EvaluateContext& context,
                 const std::function<void(int64_t sample, const Tensor& output)>& visit) {
  const size_t output = MeasuredOutput(executor, *context.dataset);
  RunSamples(executor, {context.dataset, SampleCount(context), context.cancelled, context.progress},
             [&](const SampleRun& run) { visit(run.sample, run.outputs[output]); });
}

void AddWeightMetrics(const Model& model, Metrics& metrics) {
  int64_t count = 0;
  int64_t zeros = 0;
  int64_t int8_count = 0;
  for (const WeightInfo& weight : MeasureWeights(model)) {
    count += weight.count;
    zeros += weight.zeros;
    int8_count += weight.is_int8 ? weight.count : 0;
  }
  const double all = static_cast<double>(std::max<int64_t>(1, count));
  metrics["sparsity"] = static_cast<double>(zeros) / all;
  metrics["int8_weight_share"] = static_cast<double>(int8_count) / all;
}

void AddMacMetrics(const Executor& executor, const EvaluateContext& context, Metrics& metrics) {
  double macs = 0;
  double int8_macs = 0;
  const std::vector<Tensor> inputs = context.dataset->Sample(0, executor.inputs());
  for (const LayerStats& layer : executor.Profile(inputs, 1)) {
    macs += static_cast<double>(layer.macs);
    if (!layer.kernel.empty()) int8_macs += static_cast<double>(layer.macs);
  }
  metrics["int8_mac_share"] = macs == 0 ? 0 : int8_macs / macs;
}

// What one sample adds to the metrics.
struct SampleResult {
  FidelitySums sums;
  bool agrees = false;
};

SampleResult Compare(const Tensor& reference, const Tensor& output, Pooling pooling) {
  SampleResult result;
  result.sums.Add(ToFloats(reference), ToFloats(output));
  result.agrees = ArgMax(Pooled(output, pooling)) == ArgMax(Pooled(reference, pooling));
  return result;
}

Metrics Summarize(const std::vector<SampleResult>& results, const Scorer* scorer) {
  FidelitySums sums;
  double agreeing = 0;
  double nonfinite = 0;
  for (const SampleResult& result : results) {  // in order: the sums must not depend on threads
    sums.Add(result.sums);
    agreeing += result.agrees ? 1 : 0;
    nonfinite += result.sums.has_nonfinite ? 1 : 0;
  }
  const double count = static_cast<double>(results.size());
  Metrics metrics = {
      {"agreement", agreeing / count}, {"sqnr_db", sums.SqnrDb()}, {"cosine", sums.Cosine()}};
  AddInterval("agreement", agreeing, count, metrics);
  if (scorer != nullptr) metrics.merge(scorer->Summarize());
  if (nonfinite > 0) metrics["nonfinite_samples"] = nonfinite;
  return metrics;
}

class Deflater {
 public:
  Deflater() { PARED_CHECK(deflateInit(&stream_, 6) == Z_OK); }
  ~Deflater() { deflateEnd(&stream_); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  void Add(std::span<char> bytes, int flush) {
    std::array<unsigned char, 1 << 16> sink;
    stream_.next_in = reinterpret_cast<unsigned char*>(bytes.data());
    stream_.avail_in = static_cast<unsigned int>(bytes.size());
    do {
      stream_.next_out = sink.data();
      stream_.avail_out = static_cast<unsigned int>(sink.size());
      PARED_CHECK(deflate(&stream_, flush) != Z_STREAM_ERROR);
      size_ += sink.size() - stream_.avail_out;
    } while (stream_.avail_out == 0);
  }
  size_t size() const { return size_; }

 private:
  z_stream stream_{};
  size_t size_ = 0;
};

// Adds a file's bytes to both sizes.
void AddFile(const std::filesystem::path& path, double& size, double& compressed) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error(ErrorCode::kNotFound, "cannot open", path.string());
  Deflater deflater;
  std::vector<char> buffer(1 << 18);
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    const size_t got = static_cast<size_t>(in.gcount());
    size += static_cast<double>(got);
    deflater.Add({buffer.data(), got}, in ? Z_NO_FLUSH : Z_FINISH);
  }
  compressed += static_cast<double>(deflater.size());
}

}  // namespace

int64_t SampleCount(const EvaluateContext& context) {
  PARED_CHECK(context.dataset != nullptr);
  const int64_t all = context.dataset->sample_count();
  return context.samples == 0 ? all : std::min(all, context.samples);
}

Reference RunReference(const Model& model, const EvaluateContext& context) {
  const Executor executor(model);
  Reference reference;
  reference.outputs.resize(static_cast<size_t>(SampleCount(context)));
  RunMeasured(executor, context, [&](int64_t sample, const Tensor& output) {
    reference.outputs[static_cast<size_t>(sample)] = {output};
  });
  return reference;
}

Metrics EvaluateReference(const Model& model, const Reference& reference,
                          const EvaluateContext& context) {
  const auto scorer = MakeScorer(*context.dataset, std::ssize(reference.outputs));
  std::vector<SampleResult> results(reference.outputs.size());
  tbb::parallel_for(size_t{0}, results.size(), [&](size_t i) {
    ThrowIfCancelled(context);
    const Tensor& output = reference.outputs[i].front();
    results[i] = Compare(output, output, context.dataset->task().pooling);
    if (scorer) scorer->Add(static_cast<int64_t>(i), output, output);
  });
  Metrics metrics = Summarize(results, scorer.get());
  AddWeightMetrics(model, metrics);
  AddMacMetrics(Executor(model), context, metrics);
  return metrics;
}

Metrics EvaluateAccuracy(const Model& model, const Reference& reference,
                         const EvaluateContext& context) {
  const Executor executor(model);
  const auto scorer = MakeScorer(*context.dataset, SampleCount(context));
  std::vector<SampleResult> results(static_cast<size_t>(SampleCount(context)));
  PARED_CHECK(results.size() == reference.outputs.size());
  RunMeasured(executor, context, [&](int64_t sample, const Tensor& output) {
    const size_t i = static_cast<size_t>(sample);
    const Tensor& expected = reference.outputs[i].front();
    results[i] = Compare(expected, output, context.dataset->task().pooling);
    if (scorer) scorer->Add(sample, expected, output);
  });
  Metrics metrics = Summarize(results, scorer.get());
  AddWeightMetrics(model, metrics);
  AddMacMetrics(executor, context, metrics);
  return metrics;
}

std::optional<AccuracyDrop> FindAccuracyDrop(const Metrics& metrics, const Metrics& baseline) {
  for (const char* name : {"top1", "accuracy", "map50", "boxes_kept", "psnr_db", "cer"}) {
    const auto own = metrics.find(name), base = baseline.find(name);
    if (own == metrics.end() || base == baseline.end()) continue;
    const bool counts_errors = std::string(name) == "cer";  // less is better
    return AccuracyDrop{name,
                        counts_errors ? own->second - base->second : base->second - own->second};
  }
  return std::nullopt;
}

uintmax_t FileBytes(const std::filesystem::path& path) {
  uintmax_t bytes = 0;
  for (const std::filesystem::path& file : ModelFiles(path)) {
    bytes += std::filesystem::file_size(file);
  }
  return bytes;
}

Metrics EvaluateSize(const std::filesystem::path& path) {
  double size = 0;
  double compressed = 0;
  for (const std::filesystem::path& file : ModelFiles(path)) AddFile(file, size, compressed);
  return {{"size_bytes", size}, {"size_compressed_bytes", compressed}};
}

Metrics EvaluateLatency(const std::filesystem::path& path, const EvaluateContext& context,
                        int64_t runs, int64_t threads) {
  PARED_CHECK(runs > 0);
  const Model model = LoadOnnx(path);
  ExecutorOptions options;
  options.threads = threads;
  const Executor executor(model, options);
  const std::vector<Tensor> inputs = context.dataset->Sample(0, executor.inputs());
  std::vector<double> times_ms;
  for (int64_t run = -kWarmupRuns; run < runs; ++run) {
    ThrowIfCancelled(context);
    const auto begin = std::chrono::steady_clock::now();
    executor.Run(inputs);
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - begin;
    if (run >= 0) times_ms.push_back(elapsed.count());
    context.progress(static_cast<double>(run + kWarmupRuns + 1) /
                     static_cast<double>(runs + kWarmupRuns));
  }
  double sum = 0;
  for (const double time : times_ms) sum += time;
  std::sort(times_ms.begin(), times_ms.end());
  return {{"latency_ms_mean", sum / static_cast<double>(runs)},
          {"latency_ms_p50", Percentile(times_ms, 0.5)},
          {"latency_ms_p90", Percentile(times_ms, 0.9)},
          {"latency_ms_p99", Percentile(times_ms, 0.99)},
          {"latency_ms_min", times_ms.front()},
          {"peak_activation_bytes", static_cast<double>(executor.peak_activation_bytes())}};
}

}  // namespace pared
