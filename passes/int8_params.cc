#include "passes/int8_params.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace pared {
namespace {

constexpr float kCodeMax = 255;
// Ranges that differ by less may share a scale: a tenth costs less than a second rounding.
constexpr float kNearlyEqual = 0.9f;
// Of scales that models may hold: with these the range is finite and the scale has all its bits.
constexpr float kScaleMin = std::numeric_limits<float>::min();
constexpr float kScaleMax = 1e30f;
constexpr double kBiasCodeMax = 1 << 30;  // half of int32 stays for the products

// Values joined into groups of one range.
class Groups {
 public:
  explicit Groups(const std::vector<std::string>& values) {
    for (const std::string& value : values) parent_[value] = value;
  }
  bool contains(const std::string& value) const { return parent_.contains(value); }
  const std::string& Find(const std::string& value) const {
    const std::string* at = &value;
    while (parent_.at(*at) != *at) at = &parent_.at(*at);
    return *at;
  }
  void Join(const std::string& value, const std::string& into) {
    const std::string from = Find(value), to = Find(into);
    parent_[from] = to;
  }

 private:
  std::unordered_map<std::string, std::string> parent_;
};

}  // namespace

std::optional<ActivationParams> StoredParams(const std::string& value, const Model& model,
                                             const GraphIndex& index) {
  const Node* producer = index.producer(value);
  if (producer == nullptr || producer->op_type != "DequantizeLinear" ||
      producer->inputs.size() < 3) {
    return std::nullopt;
  }
  const auto constant = [&](size_t input) {
    return ConstantOf(model.graph, index, producer->inputs[input], model.ir_version);
  };
  if (constant(0) != nullptr) return std::nullopt;  // a weight
  const std::optional<float> scale =
      ConstantNumber(model.graph, index, producer->inputs[1], model.ir_version);
  const Tensor* zero = constant(2);
  if (!scale || !(*scale >= kScaleMin && *scale <= kScaleMax) || zero == nullptr ||
      zero->count() != 1) {
    return std::nullopt;
  }
  if (zero->dtype() == DType::kUInt8) return ActivationParams{*scale, zero->data<uint8_t>()[0]};
  if (zero->dtype() != DType::kInt8) return std::nullopt;
  return ActivationParams{*scale, static_cast<uint8_t>(zero->data<int8_t>()[0] + 128)};
}

std::optional<ValueRange> FixedRange(const std::string& value, const Model& model,
                                     const GraphIndex& index) {
  const Node* producer = index.producer(value);
  if (producer == nullptr) return std::nullopt;
  const std::string& op = producer->op_type;
  if (op == "Sigmoid" || op == "HardSigmoid" || op == "Softmax") return ValueRange{0, 1};
  if (op == "Tanh" || op == "Softsign") return ValueRange{-1, 1};
  const std::optional<ActivationParams> stored = StoredParams(value, model, index);
  return stored ? std::optional(RangeOf(*stored)) : std::nullopt;
}

namespace {

ValueRange Union(ValueRange a, ValueRange b) {
  return {std::min(a.min, b.min), std::max(a.max, b.max)};
}

class RangeChooser {
 public:
  RangeChooser(const Int8Choice& choice, const Model& model, const GraphIndex& index)
      : choice_(choice), model_(model), index_(index), groups_(choice.values) {}

  std::unordered_map<std::string, ValueRange> Run(const Calibration& calibration,
                                                  const RangeOptions& options) {
    for (const Node& node : model_.graph.nodes) {
      if (choice_.RoleOf(node) == Int8Role::kJoin && KeepsRange(node)) JoinMoved(node);
    }
    for (const std::string& value : choice_.values) {
      const auto known = options.known.find(value);
      if (known != options.known.end()) known_.emplace(groups_.Find(value), known->second);
    }
    for (const std::string& value : choice_.values) {
      // What moves elements has no range of its own.
      if (groups_.Find(value) != value) continue;
      if (const std::optional<ValueRange> fixed = FixedRange(value, model_, index_)) {
        known_.erase(value);
        ranges_[value] = *fixed;
      } else if (const auto known = known_.find(value); known != known_.end()) {
        ranges_[value] = known->second;
      } else {
        ranges_[value] =
            RangeOf(calibration.sketches.at(value), options.method, options.percentile);
      }
    }
    for (const Node& node : model_.graph.nodes) {
      if (choice_.RoleOf(node) == Int8Role::kJoin && node.op_type == "Concat") JoinParts(node);
    }
    std::unordered_map<std::string, ValueRange> all;
    for (const std::string& value : choice_.values) all[value] = ranges_.at(groups_.Find(value));
    return all;
  }

 private:
  void JoinMoved(const Node& node) {
    if (!groups_.contains(node.inputs[0])) return;
    for (const std::string& output : node.outputs) {
      if (groups_.contains(output)) groups_.Join(output, node.inputs[0]);
    }
  }

  // The parts of a Concat take its range where that costs nothing: they are rounded once then.
  void JoinParts(const Node& concat) {
    const std::string& whole = concat.outputs[0];
    if (!groups_.contains(whole)) return;
    ValueRange range = ranges_.at(groups_.Find(whole));
    for (const std::string& part : concat.inputs) {
      // What nothing else reads has no say where the range of the whole is known.
      const bool has_say =
          known_.contains(groups_.Find(part)) || !OnlyFeeds(groups_.Find(part), concat);
      if (known_.contains(groups_.Find(whole)) && !has_say) continue;
      range = Union(range, ranges_.at(groups_.Find(part)));
    }
    ranges_[groups_.Find(whole)] = range;
    for (const std::string& part : concat.inputs) {
      const std::string root = groups_.Find(part);
      if (root == groups_.Find(whole)) continue;
      if (!IsNearlyEqual(ranges_.at(root), range) && !OnlyFeeds(root, concat)) continue;
      groups_.Join(part, whole);
    }
  }

  static bool IsNearlyEqual(ValueRange part, ValueRange whole) {
    return part.max - part.min >= kNearlyEqual * (whole.max - whole.min);
  }

  // Whether every reader of every value of the group is the Concat or moves elements within it.
  bool OnlyFeeds(const std::string& root, const Node& concat) const {
    for (const std::string& value : choice_.values) {
      if (groups_.Find(value) != root) continue;
      if (index_.is_output(value)) return false;
      for (const Node* reader : index_.consumers(value)) {
        const bool is_inside = reader == &concat ||
                               (choice_.RoleOf(*reader) == Int8Role::kJoin && KeepsRange(*reader));
        if (!is_inside) return false;
      }
    }
    return true;
  }

  const Int8Choice& choice_;
  const Model& model_;
  const GraphIndex& index_;
  Groups groups_;
  std::unordered_map<std::string, ValueRange> ranges_;
  std::unordered_map<std::string, ValueRange> known_;  // by group
};

size_t ChannelCount(const Shape& shape, std::optional<int64_t> axis) {
  return axis ? static_cast<size_t>(shape[static_cast<size_t>(*axis)]) : 1;
}

// Calls `visit(channel, run)` for all elements, in order: those of a run are of one channel.
template <class Visit>
void ForEachRun(std::span<const float> elements, const Shape& shape, std::optional<int64_t> axis,
                Visit visit) {
  const size_t channels = ChannelCount(shape, axis);
  const size_t size =
      axis ? static_cast<size_t>(ElementCount({shape.begin() + *axis + 1, shape.end()}))
           : elements.size();
  for (size_t begin = 0, run = 0; begin < elements.size(); begin += size, ++run) {
    visit(run % channels, elements.subspan(begin, size));
  }
}

std::vector<double> LargestOf(const std::vector<float>& elements, const Shape& shape,
                              std::optional<int64_t> axis) {
  std::vector<double> largest(ChannelCount(shape, axis), 0);
  ForEachRun(elements, shape, axis, [&](size_t channel, std::span<const float> run) {
    float most = 0;
    for (const float element : run) most = std::max(most, std::fabs(element));
    largest[channel] = std::max(largest[channel], static_cast<double>(most));
  });
  return largest;
}

// The last bit of a sum with this is worth 1: so far apart are floats there, and sums are rounded
// to the even one. A call of nearbyint for each element takes several times as long.
float RoundedCode(float code) {
  constexpr float kUnits = 12582912;
  return (code + kUnits) - kUnits;
}

// A channel of zeros has no scale of its own; any will do that keeps its bias fine.
float ScaleOf(double largest, double least, int32_t code_max) {
  const double scale = std::max(largest / code_max, least);
  if (scale > 0) return std::max(static_cast<float>(scale), std::numeric_limits<float>::min());
  return 1.0f / static_cast<float>(code_max);
}

}  // namespace

ActivationParams ParamsOf(ValueRange range) {
  const double min = std::min(range.min, 0.0f), max = std::max(range.max, 0.0f);
  ActivationParams params;
  params.scale = static_cast<float>((max - min) / kCodeMax);
  if (!(params.scale >= std::numeric_limits<float>::min())) return {1 / kCodeMax, 0};
  const double zero = std::nearbyint(-min / params.scale);
  params.zero_point = static_cast<uint8_t>(std::clamp(zero, 0.0, 1.0 * kCodeMax));
  return params;
}

ValueRange RangeOf(const ActivationParams& params) {
  const float zero = static_cast<float>(params.zero_point);
  return {-zero * params.scale, (kCodeMax - zero) * params.scale};
}

void RoundToCodes(const ActivationParams& params, std::vector<float>& elements) {
  const float zero = static_cast<float>(params.zero_point);
  for (float& element : elements) {
    const float code = std::clamp(element / params.scale, -zero, kCodeMax - zero);
    element = RoundedCode(code) * params.scale;
  }
}

std::unordered_map<std::string, ValueRange> ActivationRanges(const Int8Choice& choice,
                                                             const Model& model,
                                                             const GraphIndex& index,
                                                             const Calibration& calibration,
                                                             const RangeOptions& options) {
  return RangeChooser(choice, model, index).Run(calibration, options);
}

std::optional<int64_t> ChannelAxis(const WeightSite& site) {
  const Node& node = *site.node;
  const int64_t rank = std::ssize(site.shape);
  if (node.op_type == "Conv") return 0;
  if (node.op_type == "ConvTranspose") return 1;
  if (IsRecurrent(node)) return 1;  // [directions, rows of all gates, inputs]
  if (rank < 2) return std::nullopt;
  const bool transposed =
      node.op_type == "Gemm" && node.Int(site.input == 0 ? "transA" : "transB", 0) != 0;
  return (site.input == 0) != transposed ? rank - 2 : rank - 1;
}

std::vector<float> ViewedElements(const WeightSite& site) {
  const std::vector<float> stored = ToFloat(site.stored);
  if (site.order.empty()) return stored;
  std::vector<float> viewed;
  viewed.reserve(site.order.size());
  for (const int64_t at : site.order) viewed.push_back(stored[static_cast<size_t>(at)]);
  return viewed;
}

int64_t ChannelOf(const Shape& shape, int64_t axis, int64_t viewed) {
  int64_t inner = 1;
  for (size_t i = static_cast<size_t>(axis) + 1; i < shape.size(); ++i) inner *= shape[i];
  return viewed / inner % shape[static_cast<size_t>(axis)];
}

float WeightScales::At(const Shape& shape, int64_t viewed) const {
  return scales[axis ? static_cast<size_t>(ChannelOf(shape, *axis, viewed)) : 0];
}

QuantizedWeight QuantizeWeight(const WeightSite& site, const WeightOptions& options) {
  const std::vector<float> elements = ViewedElements(site);
  QuantizedWeight weight;
  if (options.is_per_channel) weight.axis = ChannelAxis(site);
  const std::vector<double> largest = LargestOf(elements, site.shape, weight.axis);
  double least_of_all = 0;
  for (const double least : options.scales_min) least_of_all = std::max(least_of_all, least);
  for (size_t i = 0; i < largest.size(); ++i) {
    double least = least_of_all;
    if (weight.axis && !options.scales_min.empty()) {
      least = options.scales_min[i % options.scales_min.size()];
    }
    weight.scales.push_back(ScaleOf(largest[i], least, options.code_max));
  }
  const float code_max = static_cast<float>(options.code_max);
  weight.codes.reserve(elements.size());
  ForEachRun(elements, site.shape, weight.axis, [&](size_t channel, std::span<const float> run) {
    const float scale = weight.scales[channel];
    for (const float element : run) {
      const float code = std::clamp(element / scale, -code_max, code_max);
      weight.codes.push_back(static_cast<int8_t>(RoundedCode(code)));
    }
  });
  return weight;
}

double LeastWeightScale(float bias, float scale) {
  return std::fabs(static_cast<double>(bias)) / (static_cast<double>(scale) * kBiasCodeMax);
}

int64_t SummedAxis(const Node& node) {
  if (node.op_type == "Conv" || node.op_type == "ConvTranspose") return 1;
  return node.op_type == "Gemm" && node.Int("transA", 0) != 0 ? 0 : -1;
}

std::vector<double> MeanLoss(const WeightSite& site, const QuantizedWeight& weight,
                             const ChannelStats& input) {
  if (input.axis != SummedAxis(*site.node)) return {};
  const std::vector<float> elements = ViewedElements(site);
  const MatrixLayout& layout = site.layout;
  const bool is_conv = input.axis == 1;
  const int64_t window = is_conv ? ElementCount({site.shape.begin() + 2, site.shape.end()}) : 1;
  const int64_t channels = layout.k / window;  // of a group
  if (layout.groups * channels > std::ssize(input.sums)) return {};
  std::vector<double> means;  // of each input of a row
  std::vector<double> loss;
  for (int64_t group = 0; group < layout.groups; ++group) {
    means.clear();
    for (int64_t k = 0; k < layout.k; ++k) {
      const size_t channel = static_cast<size_t>(group * channels + k / window);
      means.push_back(input.sums[channel] / static_cast<double>(input.count));
    }
    for (int64_t row = 0; row < layout.rows; ++row) {
      const double scale = weight.At(site.shape, layout.Index(group, row, 0));
      double sum = 0;
      for (int64_t k = 0; k < layout.k; ++k) {
        const size_t element = static_cast<size_t>(layout.Index(group, row, k));
        const double kept = static_cast<double>(weight.codes[element]) * scale;
        sum += (static_cast<double>(elements[element]) - kept) * means[static_cast<size_t>(k)];
      }
      loss.push_back(sum);
    }
  }
  return loss;
}

}  // namespace pared
