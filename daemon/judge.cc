#include "daemon/judge.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <sstream>
#include <utility>

#include "evaluator/metrics.h"
#include "evaluator/run_samples.h"

namespace pared {
namespace {

constexpr double kRangeRatioMax = 4;
constexpr int64_t kRangeSamples = 64;
// Integers too: tokens of another vocabulary, bytes that are no pixels.
constexpr std::array kRanged = {DType::kFloat32, DType::kFloat16, DType::kFloat64, DType::kInt64,
                                DType::kInt32,   DType::kInt8,    DType::kUInt8};

// Four digits: enough to judge by, few enough to read.
std::string Number(double value) {
  std::ostringstream text;
  text << std::setprecision(4) << value;
  return text.str();
}

std::optional<double> Find(const Metrics& metrics, const std::string& name) {
  const auto found = metrics.find(name);
  return found == metrics.end() ? std::nullopt : std::optional(found->second);
}

// Largest magnitude of each input.
std::vector<double> Magnitudes(const Dataset& dataset, const std::vector<ValueInfo>& inputs) {
  std::vector<double> largest(inputs.size(), 0);
  const int64_t count = std::min(dataset.sample_count(), kRangeSamples);
  for (int64_t i = 0; i < count; ++i) {
    // From all over: a recording begins with silence.
    const std::vector<Tensor> tensors = dataset.Sample(i * dataset.sample_count() / count, inputs);
    for (size_t input = 0; input < inputs.size(); ++input) {
      if (!std::ranges::count(kRanged, inputs[input].dtype)) continue;
      for (const float value : ToFloats(tensors[input])) {
        largest[input] = std::max(largest[input], std::abs(static_cast<double>(value)));
      }
    }
  }
  return largest;
}

}  // namespace

std::optional<std::string> FindCollapse(const Metrics& metrics, const EvaluateSpec& spec,
                                        bool has_labels) {
  if (const double count = Find(metrics, "nonfinite_samples").value_or(0); count > 0) {
    return "the output is not finite in " + Number(count) + " samples";
  }
  // Written so that NaN is a collapse too.
  if (const double sqnr = metrics.at("sqnr_db"); !(sqnr >= spec.min_sqnr_db)) {
    return "sqnr_db is " + Number(sqnr) + ", below the floor of " + Number(spec.min_sqnr_db);
  }
  // The arg max means a class only where there are labels.
  if (const double agreement = metrics.at("agreement");
      has_labels && !(agreement >= spec.min_agreement)) {
    return "agreement is " + Number(agreement) + ", below the floor of " +
           Number(spec.min_agreement);
  }
  return std::nullopt;
}

void AddRatios(const Metrics& baseline, Metrics& metrics) {
  constexpr std::array<std::pair<const char*, const char*>, 3> kRatios = {
      {{"size_bytes", "size_ratio"},
       {"size_compressed_bytes", "size_compressed_ratio"},
       {"latency_ms_p50", "latency_ratio"}}};
  for (const auto& [metric, ratio] : kRatios) {
    const std::optional<double> base = Find(baseline, metric), own = Find(metrics, metric);
    if (base && own && *base != 0) metrics[ratio] = *own / *base;
  }
}

std::optional<std::string> FindRepeats(const Dataset& dataset,
                                       const std::vector<ValueInfo>& inputs) {
  const int64_t repeats = RepeatsOf(dataset, inputs);
  if (repeats == 1) return std::nullopt;
  const std::string count = std::to_string(repeats);
  return "the model takes batches of " + count + ": each sample stands in them " + count +
         " times, and latencies are those of a whole batch";
}

std::optional<std::string> FindNonFinite(const Metrics& baseline) {
  const double count = Find(baseline, "nonfinite_samples").value_or(0);
  if (count == 0) return std::nullopt;
  return "the input model's own output is NaN or infinite in " + Number(count) +
         " samples: these elements count nowhere";
}

std::optional<std::string> FindSlowdown(const Metrics& metrics, const Metrics& baseline) {
  const std::optional<double> own = Find(metrics, "latency_ms_p50");
  const std::optional<double> p50 = Find(baseline, "latency_ms_p50");
  const std::optional<double> p90 = Find(baseline, "latency_ms_p90");
  if (!own || !p50 || !p90 || *own <= *p90) return std::nullopt;
  return "slower than the baseline: latency_ms_p50 is " + Number(*own) + ", the baseline's " +
         Number(*p50) + " (p90 " + Number(*p90) + ")";
}

std::optional<std::string> FindShortage(const std::string& what, int64_t asked,
                                        const Dataset& dataset) {
  if (asked <= dataset.sample_count()) return std::nullopt;
  return what + " asks for " + std::to_string(asked) + " samples, \"" + dataset.name() + "\" has " +
         std::to_string(dataset.sample_count());
}

std::vector<std::string> FindRangeMismatch(const Dataset& calibration, const Dataset& evaluation,
                                           const std::vector<ValueInfo>& inputs) {
  const std::vector<double> calibrated = Magnitudes(calibration, inputs);
  const std::vector<double> evaluated = Magnitudes(evaluation, inputs);
  std::vector<std::string> warnings;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const double low = std::min(calibrated[i], evaluated[i]);
    const double high = std::max(calibrated[i], evaluated[i]);
    if (high <= kRangeRatioMax * low) continue;
    warnings.push_back("input " + inputs[i].name + " reaches " + Number(calibrated[i]) +
                       " in calibration and " + Number(evaluated[i]) +
                       " in evaluation: is one of the datasets prepared differently?");
  }
  return warnings;
}

}  // namespace pared
