#include "daemon/judge.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <sstream>

#include "evaluator/metrics.h"

namespace pared {
namespace {

constexpr double kRangeRatioMax = 4;
constexpr int64_t kRangeSamples = 64;

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
  for (int64_t sample = 0; sample < std::min(dataset.sample_count(), kRangeSamples); ++sample) {
    const std::vector<Tensor> tensors = dataset.Sample(sample, inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].dtype != DType::kFloat32) continue;
      for (const float value : tensors[i].data<float>()) {
        largest[i] = std::max(largest[i], std::abs(static_cast<double>(value)));
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

std::optional<std::string> FindSlowdown(const Metrics& metrics, const Metrics& baseline) {
  const std::optional<double> own = Find(metrics, "latency_ms_p50");
  const std::optional<double> p50 = Find(baseline, "latency_ms_p50");
  const std::optional<double> p90 = Find(baseline, "latency_ms_p90");
  if (!own || !p50 || !p90 || *own <= *p90) return std::nullopt;
  return "slower than the baseline: latency_ms_p50 is " + Number(*own) + ", the baseline's " +
         Number(*p50) + " (p90 " + Number(*p90) + ")";
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
