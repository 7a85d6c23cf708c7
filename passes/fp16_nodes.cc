#include "passes/fp16_nodes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "evaluator/half_floats.h"
#include "passes/index_values.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"

namespace pared {
namespace {

constexpr double kHalfMax = 65504;
// Calibration sees some inputs, not all; four times the largest seen must still fit.
constexpr double kHeadroom = 4;
constexpr double kActivationLossMax = 1.0 / 512;  // of a value on the calibration data
constexpr double kEpsilonLossMax = 1.0 / 256;     // of an epsilon attribute

using Names = std::unordered_set<std::string>;

// Their result may be far larger than their input; without data nobody knows.
const Names kGrowing = {"CumSum",
                        "Exp",
                        "LpNormalization",
                        "MeanVarianceNormalization",
                        "Pow",
                        "ReduceL1",
                        "ReduceL2",
                        "ReduceLogSum",
                        "ReduceLogSumExp",
                        "ReduceProd",
                        "ReduceSum",
                        "ReduceSumSquare",
                        "Softplus",
                        "Sinh",
                        "Cosh"};

// Their result is about as large as the largest input.
const Names kCarrying = {"Abs",       "Add",       "Concat",     "Expand",   "Flatten", "Identity",
                         "Max",       "Mean",      "Min",        "Mul",      "Neg",     "Reshape",
                         "ReduceMax", "ReduceMin", "ReduceMean", "Slice",    "Split",   "Squeeze",
                         "Sub",       "Sum",       "Transpose",  "Unsqueeze"};

// They keep their result from zero by a small constant, as those below need it.
const Names kGuards = {"Add", "Clip", "Max"};
const Names kNeedsGuard = {"Div", "Log", "Pow", "Reciprocal", "Sqrt"};

// Their result is small however large their input.
const Names kBounded = {"Softmax",
                        "Sigmoid",
                        "Tanh",
                        "HardSigmoid",
                        "Softsign",
                        "Erf",
                        "Sign",
                        "LayerNormalization",
                        "InstanceNormalization",
                        "Log",
                        "Sin",
                        "Cos",
                        "Hardmax"};

const Names kSumming = {"ReduceMean", "GlobalAveragePool", "ReduceL2"};

// Whether the value is added to what the node's products sum up to. The sum is rounded to float16,
// whose least step is more than what float16 loses of a small addend.
bool IsBias(const Node& node, const std::string& name) {
  static const Names kBiased = {"Conv", "ConvTranspose", "Gemm"};
  return kBiased.contains(node.op_type) && node.inputs.size() > 2 && node.inputs[2] == name &&
         node.inputs[0] != name && node.inputs[1] != name;
}

// Of which float16 does not hold all values.
bool IsWideInteger(DType dtype) {
  return IsInteger(dtype) && dtype != DType::kInt8 && dtype != DType::kUInt8;
}

DType TypeIn(const TypeMap& types, const std::string& value) {
  const auto found = types.find(value);
  return found == types.end() ? DType::kUndefined : found->second.dtype;
}

std::string Count(int64_t count, const char* what) {
  return count == 0 ? "" : ", " + std::to_string(count) + " " + what;
}

class Chooser {
 public:
  Chooser(const Model& model, const Reasons& single, const HalfRanges& ranges)
      : model_(model), single_(single), ranges_(ranges) {}

  HalfChoice Run() {
    ChooseIn(model_.graph, InferShapes(model_));
    return std::move(choice_);
  }

 private:
  void ChooseIn(const Graph& graph, const TypeMap& types) {
    const GraphIndex index(graph);
    const auto integers = NodesOfIntegers(graph, index, types, model_.ir_version);
    FindRefused(graph, index, types, refused_);
    FindInt8(graph, index, types, refused_);
    FindPeaks(graph, index, refused_);
    for (const auto& [name, initializer] : graph.initializers) {
      NoteConstant(name, initializer.tensor);
    }
    for (const auto& [name, sparse] : graph.sparse_initializers) NoteConstant(name, sparse.values);
    for (const Node& node : graph.nodes) {
      if (node.op_type == "Constant") {
        if (const Tensor* tensor = node.TensorOf("value")) NoteConstant(node.outputs[0], *tensor);
        continue;
      }
      for (const auto& [name, attribute] : node.attributes) {
        if (const GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) {
          ChooseIn(**one, TypesOfSubgraph(model_, **one, types));
        }
      }
      if (!TouchesFloat(node, types)) {
        NoteOtherFloat(node, types);
        continue;
      }
      const std::string reason = integers.contains(&node) ? kEndsAsIntegers : WhyKept(node, types);
      if (reason.empty()) {
        choice_.half.insert(&node);
      } else {
        choice_.kept.emplace(&node, reason);
      }
      PropagateWide(node);
      PropagateGrown(node);
    }
  }

  void NoteConstant(const std::string& name, const Tensor& tensor) {
    if (tensor.dtype() != DType::kFloat32) return;
    constants_.emplace(name, tensor);
    const HalfLoss loss = LossOf(tensor);
    if (loss.overflow > 0) wide_.insert(name);
    if (FitsHalf(loss)) return;
    if (loss.underflow > 0) vanishing_.insert(name);
    lossy_.emplace(
        name, "float16 does not hold \"" + name + "\": of its " + std::to_string(tensor.count()) +
                  " elements" +
                  (Count(loss.overflow, "overflow") + Count(loss.underflow, "become zero") +
                   Count(loss.subnormal, "lose precision"))
                      .substr(1));
  }

  // Nodes of other float types have nothing to be cast.
  void NoteOtherFloat(const Node& node, const TypeMap& types) {
    if (!SubgraphsOf(node).empty()) return;
    for (const std::string& output : node.outputs) {
      const DType dtype = TypeIn(types, output);
      if (dtype != DType::kFloat64 && !IsHalfFloat(dtype)) continue;
      choice_.kept.emplace(&node, std::string("computes in ") + DTypeName(dtype));
    }
  }

  static bool TouchesFloat(const Node& node, const TypeMap& types) {
    if (!SubgraphsOf(node).empty()) return false;  // its graphs are looked at by themselves
    for (const auto* names : {&node.inputs, &node.outputs}) {
      for (const std::string& name : *names) {
        if (TypeIn(types, name) == DType::kFloat32) return true;
      }
    }
    return false;
  }

  std::string WhyKept(const Node& node, const TypeMap& types) {
    if (const auto reason = single_.find(&node); reason != single_.end()) return reason->second;
    if (const auto reason = refused_.find(&node); reason != refused_.end()) return reason->second;
    if (std::string reason = WhyNoHalfOp(node, model_.Opset("")); !reason.empty()) return reason;
    if (node.op_type == "Cast" && IsWideInteger(TypeIn(types, node.inputs[0]))) {
      from_integers_.insert(node.outputs[0]);
      return "its values are integers, which float16 would round";
    }
    for (const auto* names : {&node.inputs, &node.outputs}) {
      for (const std::string& name : *names) {
        if (name.empty()) continue;
        const std::string reason = WhyValueKeeps(node, name, types);
        if (!reason.empty()) return reason;
      }
    }
    return WhyRangeKeeps(node, types);
  }

  std::string WhyValueKeeps(const Node& node, const std::string& name, const TypeMap& types) {
    const DType dtype = TypeIn(types, name);
    if (dtype == DType::kUndefined) return "the type of \"" + name + "\" is not known";
    if (dtype != DType::kFloat32) return "";
    const auto lossy = lossy_.find(name);
    if (lossy != lossy_.end() && (wide_.contains(name) || !IsBias(node, name))) {
      if (vanishing_.contains(name) && kGuards.contains(node.op_type)) {
        guarded_.insert(node.outputs.begin(), node.outputs.end());
      }
      return lossy->second;
    }
    if (guarded_.contains(name) && kNeedsGuard.contains(node.op_type)) {
      return "\"" + name + "\" is kept from zero by less than float16 holds";
    }
    if (wide_.contains(name)) return "\"" + name + "\" leaves the range of float16";
    if (grown_.contains(name)) {
      return "\"" + name + "\" may leave the range of float16, and no calibration data tells";
    }
    if (from_integers_.contains(name)) {
      bool all = true;
      for (const std::string& input : node.inputs) {
        if (TypeIn(types, input) != DType::kFloat32) continue;
        all = all && (from_integers_.contains(input) || constants_.contains(input));
      }
      all = all && !kBounded.contains(node.op_type) && !EndsIntegers(node);
      if (all) from_integers_.insert(node.outputs.begin(), node.outputs.end());
      return "\"" + name + "\" is made of integers, which float16 would round";
    }
    const auto measured = ranges_.find(name);
    return measured == ranges_.end() ? "" : WhyMeasuredKeeps(name, measured->second);
  }

  static std::string WhyMeasuredKeeps(const std::string& name, const HalfRange& range) {
    if (!(range.largest <= kHalfMax / kHeadroom)) {
      return "\"" + name + "\" reaches " + ShortNumber(range.largest) + " on the calibration data";
    }
    if (range.error <= kActivationLossMax * kActivationLossMax * range.energy) return "";
    return "float16 does not hold \"" + name + "\" on the calibration data: of its " +
           std::to_string(range.count) + " elements, the largest " + ShortNumber(range.largest) +
           Count(range.loss.underflow, "become zero") +
           Count(range.loss.subnormal, "lose precision");
  }

  std::string WhyRangeKeeps(const Node& node, const TypeMap& types) {
    if (!IsMeasured(node) && kGrowing.contains(node.op_type)) {
      return node.op_type + " may leave the range of float16, and no calibration data tells";
    }
    if (kSumming.contains(node.op_type) && SumOverflows(node, types)) {
      return "the sum inside " + node.op_type + " leaves the range of float16";
    }
    const Attribute* epsilon = node.attributes.find("epsilon");
    if (epsilon != nullptr && !ComputesInSingle(node)) {
      const float* value = std::get_if<float>(&epsilon->value);
      if (value != nullptr && *value != 0) {
        const double half = ToFloat(ToFloat16(*value));
        if (std::abs(half - *value) > kEpsilonLossMax * std::abs(*value)) {
          return "its epsilon " + ShortNumber(*value) + " is too small for float16";
        }
      }
    }
    return "";
  }

  // Nothing is measured without data, and nothing within a branch or the body of a loop.
  bool IsMeasured(const Node& node) const { return ranges_.contains(node.outputs[0]); }

  // By its attribute stash_type, whatever its operands are.
  bool ComputesInSingle(const Node& node) const {
    const bool stashes = node.op_type == "LayerNormalization" ||
                         node.op_type == "RMSNormalization" ||
                         (node.op_type == "GroupNormalization" && model_.Opset("") >= 21);
    return stashes && node.Int("stash_type", 1) == static_cast<int64_t>(DType::kFloat32);
  }

  // Whether it sums many values by weights that are no integers: features, not positions. A product
  // with few may still turn coordinates or make angles.
  bool EndsIntegers(const Node& node) const {
    constexpr int64_t kFew = 4;
    const bool is_conv = node.op_type == "Conv" || node.op_type == "ConvTranspose";
    if (!is_conv && node.op_type != "Gemm" && node.op_type != "MatMul") return false;
    for (size_t i = is_conv ? 1 : 0; i < 2; ++i) {
      const auto weight = constants_.find(node.inputs[i]);
      if (weight == constants_.end()) continue;
      const auto layout = LayoutOf(node, i, weight->second.shape());
      if (layout && layout->k > kFew && HasFractions(weight->second)) return true;
    }
    return false;
  }

  static bool HasFractions(const Tensor& tensor) {
    return std::ranges::any_of(tensor.data<float>(),
                               [](float value) { return value != std::trunc(value); });
  }

  // A mean adds before it divides: what it adds up to is its result times the elements of each. A
  // norm adds the squares.
  bool SumOverflows(const Node& node, const TypeMap& types) const {
    const auto mean = ranges_.find(node.outputs[0]);
    if (node.op_type == "ReduceL2") {
      return mean != ranges_.end() &&
             mean->second.largest * mean->second.largest > kHalfMax / kHeadroom;
    }
    const auto from = types.find(node.inputs[0]), to = types.find(node.outputs[0]);
    if (mean == ranges_.end() || from == types.end() || to == types.end()) return false;
    if (!from->second.shape || !to->second.shape) return false;
    double ratio = 1;
    for (const Dim& dim : *from->second.shape)
      ratio *= static_cast<double>(std::max<int64_t>(dim.value, 1));
    for (const Dim& dim : *to->second.shape)
      ratio /= static_cast<double>(std::max<int64_t>(dim.value, 1));
    return mean->second.largest * ratio > kHalfMax / kHeadroom;
  }

  // What a constant out of range touches is out of range until an operator bounds it.
  void PropagateWide(const Node& node) {
    if (IsMeasured(node) || kBounded.contains(node.op_type)) return;
    if (node.op_type == "Equal" || node.op_type == "Less" || node.op_type == "Greater") return;
    for (const std::string& input : node.inputs) {
      if (!wide_.contains(input)) continue;
      wide_.insert(node.outputs.begin(), node.outputs.end());
      return;
    }
  }

  // Not measured: the result of a growing operator may be as large behind those that add, scale or
  // move it. Others read it in float32, which ends that: the root of a mean of squares is small.
  void PropagateGrown(const Node& node) {
    if (IsMeasured(node)) return;
    bool grows = kGrowing.contains(node.op_type);
    for (const std::string& input : node.inputs) {
      grows = grows || (grown_.contains(input) && kCarrying.contains(node.op_type));
    }
    if (grows) grown_.insert(node.outputs.begin(), node.outputs.end());
  }

  const Model& model_;
  const Reasons& single_;
  const HalfRanges& ranges_;
  Reasons refused_;  // of the graphs seen so far
  HalfChoice choice_;
  std::unordered_map<std::string, std::string> lossy_;  // constant, and why
  std::unordered_map<std::string, Tensor> constants_;
  Names vanishing_;  // constants of which float16 makes zeros
  Names wide_, grown_, from_integers_, guarded_;
};

}  // namespace

std::string ShortNumber(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%g", value);
  return text.data();
}

TypeMap TypesOfSubgraph(const Model& model, const Graph& graph, const TypeMap& outer) {
  Model alone;
  alone.ir_version = model.ir_version;
  alone.opsets = model.opsets;
  alone.functions = model.functions;
  alone.graph = graph;
  for (const std::string& name : CapturedNames(graph)) {
    const auto type = outer.find(name);
    if (type == outer.end()) continue;
    ValueInfo input;
    input.name = name;
    input.dtype = type->second.dtype;
    input.shape = type->second.shape;
    alone.graph.inputs.push_back(std::move(input));
  }
  return InferShapes(alone);
}

bool StaysSingle(const Node& node, size_t input, int64_t opset) {
  if (node.op_type == "Resize") return opset < 11 ? input == 1 : input == 1 || input == 2;
  if (node.op_type == "GridSample") return input == 1;
  if (node.op_type == "Upsample" || node.op_type == "Dropout") return input == 1;
  return false;
}

HalfChoice ChooseHalfNodes(const Model& model, const Reasons& single, const HalfRanges& ranges) {
  return Chooser(model, single, ranges).Run();
}

}  // namespace pared
