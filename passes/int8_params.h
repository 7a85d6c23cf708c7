// Scales and zero points: of activations from their ranges, of weights and biases from their
// elements.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "passes/calibrate.h"
#include "passes/int8_choice.h"

namespace pared {

// real = scale * (code - zero_point), code an uint8. Zero is exact.
struct ActivationParams {
  float scale = 1;
  uint8_t zero_point = 0;
};
ActivationParams ParamsOf(ValueRange range);
// The range that `params` cover; ParamsOf() of it gives them back but for rounding.
ValueRange RangeOf(const ActivationParams& params);
// Each element as its code gives it.
void RoundToCodes(const ActivationParams& params, std::vector<float>& elements);

struct RangeOptions {
  RangeMethod method = RangeMethod::kPercentile;
  double percentile = 99.999;
  // Of some values, whatever the method says.
  std::unordered_map<std::string, ValueRange> known;
};

// The scale and zero point of a value that is stored in codes: what a DequantizeLinear with one
// scale makes of 8 bits. nullopt: it is not.
std::optional<ActivationParams> StoredParams(const std::string& value, const Model& model,
                                             const GraphIndex& index);

// The range that what makes a value gives it: a function as Sigmoid, or its codes (StoredParams).
// nullopt: none.
std::optional<ValueRange> FixedRange(const std::string& value, const Model& model,
                                     const GraphIndex& index);

// The range of every value of choice.values. Values that operators only move share one; so do the
// parts of a Concat that nothing else reads. Fixed ranges (FixedRange) hold.
std::unordered_map<std::string, ValueRange> ActivationRanges(const Int8Choice& choice,
                                                             const Model& model,
                                                             const GraphIndex& index,
                                                             const Calibration& calibration,
                                                             const RangeOptions& options);

// The axis of the weight, as its node sees it, along which output channels lie; nullopt: it has
// none.
std::optional<int64_t> ChannelAxis(const WeightSite& site);

// The elements in the order of the node's view.
std::vector<float> ViewedElements(const WeightSite& site);

struct WeightScales {
  std::vector<float> scales;    // one, or one a channel
  std::optional<int64_t> axis;  // nullopt: one scale for all

  // Of the element at `viewed` of a weight of this shape.
  float At(const Shape& shape, int64_t viewed) const;
};

struct QuantizedWeight : WeightScales {
  std::vector<int8_t> codes;
};

struct WeightOptions {
  bool is_per_channel = true;
  int32_t code_max = 127;
  // No scale of a channel is less, so that its bias fits int32. Empty: no bound.
  std::vector<double> scales_min;
};

// Symmetric: zeros stay zeros. A channel of zeros gets a scale above zero.
QuantizedWeight QuantizeWeight(const WeightSite& site, const WeightOptions& options);

// The index of the scale that the element at `viewed` has.
int64_t ChannelOf(const Shape& shape, int64_t axis, int64_t viewed);

// The least weight scale with which `bias` fits int32 at input scale `scale`, with room for the
// products.
double LeastWeightScale(float bias, float scale);

// The axis of the first input that the weight of `node` sums over: -1, the last one, of products.
int64_t SummedAxis(const Node& node);

// For each output channel: what the mean of its result loses by the weight's rounding, given the
// mean of each input channel. Added to the bias it restores the mean. Empty: `input` is of another
// axis, or of fewer channels.
std::vector<double> MeanLoss(const WeightSite& site, const QuantizedWeight& weight,
                             const ChannelStats& input);

}  // namespace pared
