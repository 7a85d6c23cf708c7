#include "evaluator/evaluate.h"

#include <libdeflate.h>
#include <tbb/parallel_for.h>
#include <tbb/parallel_invoke.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <span>

#include "base/error.h"
#include "evaluator/metrics.h"
#include "evaluator/run_samples.h"
#include "evaluator/scorer.h"
#include "evaluator/scores.h"
#include "model/mapped_file.h"
#include "model/onnx.h"
#include "model/tflite.h"

namespace pared {
namespace {

constexpr int64_t kWarmupRuns = 3;
constexpr int kCompressionLevel = 6;
constexpr size_t kCompressedPartBytes = size_t{1} << 20;

void ThrowIfCancelled(const EvaluateContext& context) {
  if (context.cancelled()) throw Error(ErrorCode::kCancelled, "the evaluation was cancelled");
}

// The place among the model's outputs of the one that the dataset's task measures.
size_t MeasuredOutput(const Executor& executor, const Dataset& dataset) {
  const std::vector<std::string>& names = dataset.task().output;
  if (names.empty()) {
    const auto first =
        std::ranges::find_if_not(executor.outputs(), HoldsIndices, &ValueInfo::dtype);
    if (first == executor.outputs().end()) return 0;
    return static_cast<size_t>(first - executor.outputs().begin());
  }
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

double Int8MacShare(const std::vector<LayerStats>& layers) {
  double macs = 0;
  double int8_macs = 0;
  for (const LayerStats& layer : layers) {
    macs += static_cast<double>(layer.macs);
    if (!layer.kernel.empty()) int8_macs += static_cast<double>(layer.macs);
  }
  return macs == 0 ? 0 : int8_macs / macs;
}

// What belongs to the sample, of an output for a batch in which it stands `repeats` times.
Tensor FirstOf(const Tensor& output, int64_t repeats) {
  if (repeats == 1 || output.rank() == 0 || output.shape()[0] % repeats != 0) return output;
  Shape shape = output.shape();
  shape[0] /= repeats;
  const auto owner = std::make_shared<const Tensor>(output);
  const size_t bytes = output.bytes().size() / static_cast<size_t>(repeats);
  return Tensor::View(output.dtype(), std::move(shape), output.bytes().first(bytes), owner);
}

// Hands the measured output of each sample to `visit`, as RunSamples does. Returns the
// metrics of the model by itself.
Metrics RunMeasured(const Model& model, const EvaluateContext& context,
                    const std::function<void(int64_t sample, const Tensor& output)>& visit) {
  const Executor executor(model);
  const size_t output = MeasuredOutput(executor, *context.dataset);
  const int64_t repeats = RepeatsOf(*context.dataset, executor.inputs());
  Metrics metrics;
  std::vector<LayerStats> layers;
  tbb::parallel_invoke([&] { metrics = EvaluateWeights(model); },
                       [&] {
                         RunSamples(executor,
                                    {context.dataset, SampleCount(context), context.cancelled,
                                     context.progress, &layers},
                                    [&](const SampleRun& run) {
                                      visit(run.sample, FirstOf(run.outputs[output], repeats));
                                    });
                       });
  metrics["int8_mac_share"] = Int8MacShare(layers);
  return metrics;
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

// A model's outputs against the reference's, sample by sample.
class Comparison {
 public:
  Comparison(const Reference& reference, const EvaluateContext& context)
      : reference_(reference),
        pooling_(context.dataset->task().pooling),
        scorer_(MakeScorer(*context.dataset, SampleCount(context))),
        results_(static_cast<size_t>(SampleCount(context))) {
    PARED_CHECK(results_.size() == reference.outputs.size());
  }

  // Once a sample, by any thread.
  void Add(int64_t sample, const Tensor& output) {
    const size_t i = static_cast<size_t>(sample);
    const Tensor& expected = reference_.outputs[i].front();
    results_[i] = Compare(expected, output, pooling_);
    if (scorer_) scorer_->Add(sample, expected, output);
  }

  // `own`: metrics of the model by itself.
  Metrics Summarize(const Metrics& own) const {
    FidelitySums sums;
    double agreeing = 0;
    double nonfinite = 0;
    for (const SampleResult& result : results_) {  // in order: sums must not depend on threads
      sums.Add(result.sums);
      agreeing += result.agrees ? 1 : 0;
      nonfinite += result.sums.has_nonfinite ? 1 : 0;
    }
    const double count = static_cast<double>(results_.size());
    Metrics metrics = own;
    metrics["agreement"] = agreeing / count;
    metrics["sqnr_db"] = sums.SqnrDb();
    metrics["cosine"] = sums.Cosine();
    AddInterval("agreement", agreeing, count, metrics);
    if (scorer_) metrics.merge(scorer_->Summarize());
    if (nonfinite > 0) metrics["nonfinite_samples"] = nonfinite;
    return metrics;
  }

 private:
  const Reference& reference_;
  const Pooling pooling_;
  const std::unique_ptr<Scorer> scorer_;
  std::vector<SampleResult> results_;
};

size_t CompressedBytes(std::span<const std::byte> part) {
  const std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)> compressor(
      libdeflate_alloc_compressor(kCompressionLevel), libdeflate_free_compressor);
  PARED_CHECK(compressor != nullptr);
  std::vector<std::byte> sink(libdeflate_zlib_compress_bound(compressor.get(), part.size()));
  const size_t size = libdeflate_zlib_compress(compressor.get(), part.data(), part.size(),
                                               sink.data(), sink.size());
  PARED_CHECK(size > 0);
  return size;
}

// By parts that do not depend on the number of threads.
uintmax_t CompressedBytes(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  const std::span<const std::byte> bytes = file->bytes();
  const size_t parts = (bytes.size() + kCompressedPartBytes - 1) / kCompressedPartBytes;
  std::atomic<uintmax_t> sum = 0;
  tbb::parallel_for(size_t{0}, parts, [&](size_t i) {
    const size_t begin = i * kCompressedPartBytes;
    const auto part = bytes.subspan(begin, std::min(kCompressedPartBytes, bytes.size() - begin));
    sum += CompressedBytes(part);
    DropMappedPages(part);  // a large file would else be in memory as a whole
  });
  return sum;
}

}  // namespace

int64_t SampleCount(const EvaluateContext& context) {
  PARED_CHECK(context.dataset != nullptr);
  const int64_t all = context.dataset->sample_count();
  return context.samples == 0 ? all : std::min(all, context.samples);
}

Reference RunReference(const Model& model, const EvaluateContext& context) {
  Reference reference;
  reference.outputs.resize(static_cast<size_t>(SampleCount(context)));
  std::atomic<int64_t> nonfinite = 0;
  reference.metrics = RunMeasured(model, context, [&](int64_t sample, const Tensor& output) {
    const auto is_finite = [](float element) { return std::isfinite(element); };
    if (!std::ranges::all_of(ToFloats(output), is_finite)) ++nonfinite;
    reference.outputs[static_cast<size_t>(sample)] = {output};
  });
  if (nonfinite > 0) reference.metrics["nonfinite_samples"] = static_cast<double>(nonfinite);
  return reference;
}

Metrics EvaluateOutputs(const Reference& own, const Reference& reference,
                        const EvaluateContext& context) {
  Comparison comparison(reference, context);
  tbb::parallel_for(int64_t{0}, std::ssize(own.outputs), [&](int64_t sample) {
    ThrowIfCancelled(context);
    comparison.Add(sample, own.outputs[static_cast<size_t>(sample)].front());
  });
  return comparison.Summarize(own.metrics);
}

Metrics EvaluateAccuracy(const Model& model, const Reference& reference,
                         const EvaluateContext& context) {
  Comparison comparison(reference, context);
  const Metrics own = RunMeasured(model, context, [&](int64_t sample, const Tensor& output) {
    comparison.Add(sample, output);
  });
  return comparison.Summarize(own);
}

Metrics EvaluateWeights(const Model& model) {
  int64_t count = 0;
  int64_t zeros = 0;
  int64_t int8_count = 0;
  for (const WeightInfo& weight : MeasureWeights(model)) {
    count += weight.count;
    zeros += weight.zeros;
    int8_count += weight.is_int8 ? weight.count : 0;
  }
  const double all = static_cast<double>(std::max<int64_t>(1, count));
  return {{"sparsity", static_cast<double>(zeros) / all},
          {"int8_weight_share", static_cast<double>(int8_count) / all}};
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
  uintmax_t compressed = 0;
  for (const std::filesystem::path& file : ModelFiles(path)) compressed += CompressedBytes(file);
  return {{"size_bytes", static_cast<double>(FileBytes(path))},
          {"size_compressed_bytes", static_cast<double>(compressed)}};
}

Metrics EvaluateLatency(const std::filesystem::path& path, const EvaluateContext& context,
                        int64_t runs, int64_t threads) {
  PARED_CHECK(runs > 0);
  const Model model = LoadModel(path);
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
