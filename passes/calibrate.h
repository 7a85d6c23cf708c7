// Ranges of activations, from running the float model over calibration samples.
//
// Statistics are sketches of constant size that do not depend on the order or the batching of the
// samples: memory does not grow with their number.

#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/graph.h"
#include "passes/pass.h"

namespace pared {

enum class RangeMethod { kMinMax, kPercentile, kEntropy, kMse };

struct ValueRange {
  float min = 0, max = 0;  // min <= 0 <= max
};

// What was seen of one value. Magnitudes are counted in bins that are a constant fraction of an
// octave wide (kernels/histogram.h), so that an outlier of any size leaves the resolution of the
// rest as it is.
class Sketch {
 public:
  void Add(std::span<const float> elements, bool with_bins);
  void Add(const Sketch& other);  // all that it has seen

  bool has_bins() const { return !counts_.empty(); }
  int64_t bytes() const;  // in memory

  int64_t count() const { return count_; }
  int64_t nan_count() const { return nan_count_; }
  int64_t infinite_count() const { return infinite_count_; }
  // Of the finite elements; 0, 0 where there is none.
  ValueRange min_max() const { return {std::min(min_, 0.0f), std::max(max_, 0.0f)}; }

  // The share `percentile` / 100 of all elements lies inside; what is cut off is cut from the end
  // that has the larger magnitude.
  ValueRange Percentile(double percentile) const;
  // The range of 255 steps with the least mean squared error.
  ValueRange LeastSquaredError() const;
  // The range whose quantized distribution has the least Kullback-Leibler divergence.
  ValueRange LeastDivergence() const;

 private:
  struct Bin {
    double center;
    int64_t count;
  };
  std::vector<Bin> FilledBins() const;  // in ascending order

  float min_ = 0, max_ = 0;
  int64_t count_ = 0, nan_count_ = 0, infinite_count_ = 0;
  std::vector<int64_t> counts_;  // a histogram; empty until bins are asked for
};

// Per channel along one axis of a value: what bias correction and smoothing need.
struct ChannelStats {
  int64_t axis = -1;  // from the front, or from the back where negative
  int64_t count = 0;  // elements of each channel
  std::vector<double> sums;
  std::vector<float> magnitudes;  // largest |x|
};

struct CalibrationRequest {
  bool with_bins = false;
  std::vector<std::string> values;          // to be ranged
  std::map<std::string, int64_t> channels;  // value to the axis of its channels
};

struct Calibration {
  std::unordered_map<std::string, Sketch> sketches;
  std::unordered_map<std::string, ChannelStats> channels;
  int64_t samples = 0;
};

// What is wanted whole of some samples, which need not be run a second time for it.
struct KeptValues {
  std::vector<std::string> values;
  std::vector<int64_t> samples;  // ascending
  // Of each sample, once they were run: values that no node makes are not among them.
  std::vector<std::unordered_map<std::string, Tensor>> seen{};
};

// Runs the samples of context.calibration, once for what context.shared keeps; `kept` is filled
// where they are run. Throws kInvalidArgument naming the value where more than one element in a
// thousand is NaN or infinite, or where a value was never seen; kCancelled.
Calibration Calibrate(const Model& model, const CalibrationRequest& request, PassContext& context,
                      KeptValues* kept = nullptr);

ValueRange RangeOf(const Sketch& sketch, RangeMethod method, double percentile);

// The number of samples a pass looks at.
int64_t CalibrationCount(const PassContext& context);

}  // namespace pared
