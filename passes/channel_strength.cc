#include "passes/channel_strength.h"

#include <cmath>
#include <numeric>
#include <set>
#include <string_view>

#include "passes/float_elements.h"
#include "passes/weights.h"

namespace pared {
namespace {

// Of zero they make something else, whatever the input.
const std::set<std::string_view> kNotZeroAtZero = {
    "Sigmoid", "HardSigmoid", "Softplus", "Exp", "Log", "Cos", "Cosh", "Softmax", "Reciprocal"};
const std::set<std::string_view> kAdding = {"Add", "Sub", "Sum", "Mean", "Min", "Max"};
const std::set<std::string_view> kMultiplying = {"Mul"};  // a small divisor makes a result large
const std::set<std::string_view> kNormalizing = {"BatchNormalization", "InstanceNormalization"};

// Layers count the same, however large their weights are.
void DivideByMean(std::vector<double>& strengths) {
  const double sum = std::reduce(strengths.begin(), strengths.end(), 0.0);
  if (!(sum > 0)) return;
  for (double& strength : strengths) strength *= static_cast<double>(strengths.size()) / sum;
}

}  // namespace

std::vector<double> NormsOf(const Tensor& weight, const ChannelCut& cut, Norm norm) {
  const Shape& shape = weight.shape();
  const auto after = shape.begin() + static_cast<std::ptrdiff_t>(cut.axis) + 1;
  const int64_t inner = ElementCount({after, shape.end()});
  std::vector<double> norms(cut.channels.size(), 0.0);
  const FloatElements elements(weight);
  const std::span<const float> values = elements.get();
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t slice = static_cast<int64_t>(i) / inner % std::ssize(norms);
    const double value = values[i];
    norms[static_cast<size_t>(slice)] += norm == Norm::kL1 ? std::abs(value) : value * value;
  }
  return norms;
}

ChannelStrengths::ChannelStrengths(const Model& model, const ChannelGroups& groups, Norm norm)
    : model_(model), groups_(groups), norm_(norm), index_(model.graph) {
  for (const ChannelCut& cut : groups.cuts) {
    if (cut.role != CutRole::kReads) cuts_.emplace(std::pair(cut.node, cut.input), &cut);
  }
  for (size_t number = 0; number < model.graph.nodes.size(); ++number) {
    for (const std::string& output : model.graph.nodes[number].outputs) {
      if (!groups.values.contains(output)) continue;
      strengths_[output] = After(number, output);
      DivideByMean(strengths_[output]);
    }
  }
}

void ChannelStrengths::Add(const std::string& value, Means& means) const {
  const auto strengths = strengths_.find(value);
  if (strengths == strengths_.end()) return;
  const std::vector<int64_t>& ids = groups_.values.at(value).ids;
  for (size_t i = 0; i < ids.size(); ++i) {
    means[ids[i]].sum += strengths->second[i];
    ++means[ids[i]].count;
  }
}

ChannelStrengths::Strengths ChannelStrengths::From(const Means& means,
                                                   const std::vector<int64_t>& groups) {
  Strengths strengths;
  for (const int64_t group : groups) {
    const auto mean = means.find(group);
    strengths.push_back(mean == means.end() ? 1.0 : mean->second.sum / mean->second.count);
  }
  return strengths;
}

std::vector<double> ChannelStrengths::Of(const std::string& value,
                                         const std::vector<int64_t>& groups) const {
  Means means;
  Add(value, means);
  return From(means, groups);
}

ChannelStrengths::Strengths ChannelStrengths::After(size_t number,
                                                    const std::string& output) const {
  const Node& node = model_.graph.nodes[number];
  const Channels& out = groups_.values.at(output);
  const auto weight = cuts_.find({number, 1});
  if (groups_.group_attributes.contains(number)) return Depthwise(number, out);
  if (weight != cuts_.end() && weight->second->role == CutRole::kMakes) return Made(number);
  if (kNotZeroAtZero.contains(node.op_type)) return Strengths(out.ids.size(), 1.0);
  if (kNormalizing.contains(node.op_type)) return Normalized(number, out);
  if (kAdding.contains(node.op_type) || kMultiplying.contains(node.op_type)) {
    return Joined(number, out);
  }
  return Carried(number, out);
}

ChannelStrengths::Strengths ChannelStrengths::NormsAt(size_t number, size_t input) const {
  const auto cut = cuts_.find({number, input});
  if (cut == cuts_.end()) return {};
  const std::string& name = model_.graph.nodes[number].inputs[input];
  const Tensor& constant = *ConstantOf(model_.graph, index_, name, model_.ir_version);
  Strengths norms = NormsOf(constant, *cut->second, norm_);
  constant.DropPages();
  return norms;
}

void ChannelStrengths::FillDead(size_t number, size_t input, Strengths& strengths) const {
  const Strengths constant = NormsAt(number, input);
  if (constant.size() != strengths.size()) return;
  for (size_t i = 0; i < constant.size(); ++i) {
    if (strengths[i] == 0) strengths[i] = constant[i];
  }
}

ChannelStrengths::Strengths ChannelStrengths::Made(size_t number) const {
  Strengths made = NormsAt(number, 1);
  FillDead(number, 2, made);
  return made;
}

ChannelStrengths::Strengths ChannelStrengths::Depthwise(size_t number, const Channels& out) const {
  Strengths made = Carried(number, out);
  const Strengths norms = NormsAt(number, 1);
  for (size_t i = 0; i < norms.size() && i < made.size(); ++i) made[i] *= norms[i];
  FillDead(number, 2, made);
  return made;
}

ChannelStrengths::Strengths ChannelStrengths::Normalized(size_t number, const Channels& out) const {
  Strengths made = Carried(number, out);
  const Strengths scales = NormsAt(number, 1);
  for (size_t i = 0; i < scales.size() && i < made.size(); ++i) {
    if (made[i] > 0) made[i] = scales[i];
  }
  FillDead(number, 2, made);
  return made;
}

// Of two values, or of one and a constant that has an element for each channel.
ChannelStrengths::Strengths ChannelStrengths::Joined(size_t number, const Channels& out) const {
  const Node& node = model_.graph.nodes[number];
  const bool multiplies = kMultiplying.contains(node.op_type);
  Strengths joined(out.ids.size(), multiplies ? 1.0 : 0.0);
  for (const std::string& input : node.inputs) {
    const auto strengths = strengths_.find(input);
    if (strengths == strengths_.end() || strengths->second.size() != joined.size()) continue;
    for (size_t i = 0; i < joined.size(); ++i) {
      const double strength = strengths->second[i];
      joined[i] = multiplies ? joined[i] * strength : joined[i] + strength;
    }
  }
  for (size_t input = 0; input < node.inputs.size(); ++input) {
    if (!multiplies) FillDead(number, input, joined);
    const Strengths factors = node.op_type == "Mul" ? NormsAt(number, input) : Strengths();
    for (size_t i = 0; i < factors.size() && i < joined.size(); ++i) joined[i] *= factors[i];
  }
  return joined;
}

// What the channels of the same groups had in the inputs.
ChannelStrengths::Strengths ChannelStrengths::Carried(size_t number, const Channels& out) const {
  Means means;
  for (const std::string& input : model_.graph.nodes[number].inputs) Add(input, means);
  return From(means, out.ids);
}

}  // namespace pared
