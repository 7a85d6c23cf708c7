// Measures a model: fidelity to the float model, accuracy on labels, size, sparsity, latency.

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "config/fields.h"
#include "evaluator/dataset.h"
#include "evaluator/executor.h"
#include "model/graph.h"

namespace pared {

// Metric name to value. Names are public: docs/job_spec.md lists them with units.
//   top1, map50, psnr_db ...  accuracy by the dataset's task (scorer.h, docs/data.md)
//   agreement, _low, _high   fraction of samples with the float model's arg max, Wilson's interval
//   sqnr_db, cosine          the measured output against the float model's, over all samples; SQNR
//                            is 10 log10(sum ref^2 / sum (ref - y)^2), 200 where they are equal
//   nonfinite_samples        samples with NaN or infinity where the float model has none; of the
//                            float model itself, with any
//   size_bytes, size_compressed_bytes (each MiB of the file as a zlib stream of libdeflate's level
//   6), sparsity (zeros among all weights), int8_weight_share, int8_mac_share,
//   latency_ms_mean, _p50, _p90, _p99, _min, peak_activation_bytes
using Metrics = std::map<std::string, double>;

// What a model, mostly the float one, gave: the measured output (the dataset's "output", else the
// first of floats) for each sample, kept to compare with.
struct Reference {
  std::vector<std::vector<Tensor>> outputs;
  Metrics metrics;  // of the model by itself: sparsity and INT8 shares
};

struct EvaluateContext {
  const Dataset* dataset = nullptr;
  int64_t samples = 0;  // 0: all
  // Both are called by any thread, possibly several at once.
  std::function<bool()> cancelled = [] { return false; };
  std::function<void(double fraction)> progress = [](double) {};
};

// Runs `model` over the samples. Throws kCancelled.
Reference RunReference(const Model& model, const EvaluateContext& context);

// How many samples are measured: context.samples, or as many as there are.
int64_t SampleCount(const EvaluateContext& context);

// What EvaluateAccuracy gives for the model that `own` was made by, without running it again; `own`
// may be `reference` itself.
Metrics EvaluateOutputs(const Reference& own, const Reference& reference,
                        const EvaluateContext& context);

// Accuracy by the dataset's task, agreement, sqnr_db, cosine, sparsity, int8 shares.
Metrics EvaluateAccuracy(const Model& model, const Reference& reference,
                         const EvaluateContext& context);

// Of these sparsity and int8_weight_share, for which the model need not run.
Metrics EvaluateWeights(const Model& model);

// What a model lost of `baseline` by the first figure of the dataset's task that both have.
struct AccuracyDrop {
  std::string figure;  // top1, accuracy, map50, boxes_kept, psnr_db or cer
  double drop = 0;     // positive is worse
};
// nullopt: the data has nothing to measure it by.
std::optional<AccuracyDrop> FindAccuracyDrop(const Metrics& metrics, const Metrics& baseline);

// Bytes of a file that exists, its external data included.
uintmax_t FileBytes(const std::filesystem::path& path);

// size_bytes and size_compressed_bytes of a file (its external data included). Compresses it all,
// on TBB's threads: 100 MB of floats take 1.4 s of one core.
Metrics EvaluateSize(const std::filesystem::path& path);

// Loads the file, warms up, times `runs` runs of one sample alone in the process.
Metrics EvaluateLatency(const std::filesystem::path& path, const EvaluateContext& context,
                        int64_t runs, int64_t threads);

}  // namespace pared
