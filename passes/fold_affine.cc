#include "passes/fold_affine.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "model/rewrite.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"

namespace pared {
namespace {

// y[channel] = factors[channel] * c[channel] + offsets[channel]
struct Affine {
  std::vector<double> factors, offsets;
};

struct Folding {
  size_t target = 0;  // index of the convolution among the nodes
  size_t source = 0;  // of the node that disappears
  Affine affine;
};

bool IsFoldTarget(const Node& node) {
  return node.domain.empty() &&
         (node.op_type == "Conv" || node.op_type == "ConvTranspose" || node.op_type == "Gemm");
}

class Folder {
 public:
  Folder(Graph& graph, int64_t ir_version, FreshNames& names)
      : graph_(graph), index_(graph), ir_version_(ir_version), names_(names) {}

  const Tensor* Constant(const Node& node, size_t input) const {
    if (input >= node.inputs.size() || node.inputs[input].empty()) return nullptr;
    const Tensor* tensor = ConstantOf(graph_, index_, node.inputs[input], ir_version_);
    return tensor != nullptr && tensor->dtype() == DType::kFloat32 ? tensor : nullptr;
  }

  // What an input is that Constant does not take.
  std::string WhyNoConstant(const Node& node, size_t input) const {
    const std::string& name = node.inputs[input];
    if (graph_.initializers.contains(name) && IsAmong(graph_.inputs, name)) {
      return " is also a graph input, which a caller may override: \"freeze_inputs\" of "
             "fold_constants drops such inputs";
    }
    return " is no float32 constant";
  }

  // The convolution whose result only `node` reads; `reason` says why there is none.
  const Node* TargetOf(const Node& node, const std::string& value, std::string& reason) const {
    const Node* target = index_.producer(value);
    if (target == nullptr || !IsFoldTarget(*target)) {
      reason = "no convolution makes its input";
    } else if (index_.consumers(value).size() != 1 || index_.is_output(value)) {
      reason = "\"" + value + "\" has another reader";
    } else if (index_.consumers(value)[0] != &node || Constant(*target, 1) == nullptr) {
      reason = "the weight of " + NodeLabel(*target) + WhyNoConstant(*target, 1);
    } else if (target->inputs.size() > 2 && !target->inputs[2].empty() &&
               Constant(*target, 2) == nullptr) {
      reason = "the bias of " + NodeLabel(*target) + WhyNoConstant(*target, 2);
    } else if (target->op_type == "Gemm" &&
               (target->Float("alpha", 1) != 1 || target->Float("beta", 1) != 1)) {
      reason = NodeLabel(*target) + " has an alpha or beta";
    } else {
      return target;
    }
    return nullptr;
  }

  // Output channels of the convolution; nullopt: its weight has a rank it should not have.
  std::optional<int64_t> ChannelCount(const Node& target) const {
    const std::optional<MatrixLayout> layout = LayoutOf(target, 1, Constant(target, 1)->shape());
    if (!layout) return std::nullopt;
    return layout->groups * layout->rows;
  }

  // Gives the convolution a weight and bias of its own: others may share the old ones.
  void Apply(Node& target, const Affine& affine) {
    const Tensor& weight = *Constant(target, 1);
    const MatrixLayout layout = *LayoutOf(target, 1, weight.shape());
    const std::span<const float> old = weight.data<float>();
    std::vector<float> scaled(old.begin(), old.end());
    for (int64_t group = 0; group < layout.groups; ++group) {
      for (int64_t row = 0; row < layout.rows; ++row) {
        const double factor = affine.factors[static_cast<size_t>(group * layout.rows + row)];
        for (int64_t k = 0; k < layout.k; ++k) {
          float& element = scaled[static_cast<size_t>(layout.Index(group, row, k))];
          element = static_cast<float>(element * factor);
        }
      }
    }
    std::vector<float> bias = OldBias(target, affine.factors.size());
    for (size_t i = 0; i < bias.size(); ++i) {
      bias[i] = static_cast<float>(bias[i] * affine.factors[i] + affine.offsets[i]);
    }
    const Shape bias_shape = {static_cast<int64_t>(bias.size())};
    SetInput(target, 1, Tensor::Make<float>(weight.shape(), std::move(scaled)));
    SetInput(target, 2, Tensor::Make<float>(bias_shape, std::move(bias)));
  }

 private:
  std::vector<float> OldBias(const Node& target, size_t channels) const {
    std::vector<float> bias(channels, 0);
    const Tensor* old = Constant(target, 2);
    if (old == nullptr) return bias;
    const std::span<const float> values = old->data<float>();
    for (size_t i = 0; i < channels; ++i) bias[i] = values[values.size() == 1 ? 0 : i];
    return bias;
  }

  void SetInput(Node& target, size_t input, Tensor tensor) {
    const bool is_new = input >= target.inputs.size() || target.inputs[input].empty();
    const std::string base = is_new ? target.outputs[0] + "_bias" : target.inputs[input];
    const std::string name = names_.Make(base + "_folded");
    if (target.inputs.size() <= input) target.inputs.resize(input + 1);
    target.inputs[input] = name;
    graph_.initializers.set(name, {std::move(tensor), ""});
  }

  Graph& graph_;
  GraphIndex index_;
  int64_t ir_version_;
  FreshNames& names_;
};

std::optional<Affine> AffineOfBatchNorm(const Folder& folder, const Node& node, int64_t channels,
                                        std::string& reason) {
  const Tensor *scale = folder.Constant(node, 1), *shift = folder.Constant(node, 2);
  const Tensor *mean = folder.Constant(node, 3), *variance = folder.Constant(node, 4);
  size_t input = 0;
  for (const Tensor* tensor : {scale, shift, mean, variance}) {
    ++input;
    if (tensor != nullptr && tensor->count() == channels) continue;
    reason = "its scale, shift, mean or variance" +
             (tensor == nullptr ? folder.WhyNoConstant(node, input)
                                : " is no constant of " + std::to_string(channels));
    return std::nullopt;
  }
  Affine affine;
  const double epsilon = node.Float("epsilon", 1e-5f);
  for (size_t i = 0; i < static_cast<size_t>(channels); ++i) {
    const double factor = scale->data<float>()[i] / std::sqrt(variance->data<float>()[i] + epsilon);
    affine.factors.push_back(factor);
    affine.offsets.push_back(shift->data<float>()[i] - mean->data<float>()[i] * factor);
  }
  return affine;
}

std::optional<Folding> FindBatchNorm(const Folder& folder, const Graph& graph, size_t at,
                                     std::string& reason) {
  const Node& node = graph.nodes[at];
  bool trains = node.Int("training_mode", 0) != 0 || node.Int("spatial", 1) == 0;
  for (size_t i = 1; i < node.outputs.size(); ++i) trains = trains || !node.outputs[i].empty();
  if (trains) {
    reason = "it trains, or does not count by channel";
    return std::nullopt;
  }
  const Node* target = folder.TargetOf(node, node.inputs[0], reason);
  if (target == nullptr) return std::nullopt;
  const std::optional<int64_t> channels = folder.ChannelCount(*target);
  if (!channels) return std::nullopt;
  const std::optional<Affine> affine = AffineOfBatchNorm(folder, node, *channels, reason);
  if (!affine) return std::nullopt;
  return Folding{static_cast<size_t>(target - graph.nodes.data()), at, *affine};
}

// Whether the shape, aligned at the right with [n, channels, spatial...], has one number for each
// channel, or just one.
bool IsPerChannel(const Shape& shape, int64_t rank, int64_t channels) {
  const int64_t offset = rank - std::ssize(shape);
  if (offset < 0) return false;
  for (int64_t i = 0; i < std::ssize(shape); ++i) {
    const int64_t dim = shape[static_cast<size_t>(i)];
    if (dim != 1 && !(i + offset == 1 && dim == channels)) return false;
  }
  return true;
}

// What `node` does to one element of the other operand, which is its input 1 - `constant`.
std::optional<Affine> AffineOfArithmetic(const Node& node, size_t constant,
                                         std::span<const float> numbers) {
  Affine affine;
  for (const float number : numbers) {
    const double value = number;
    if (node.op_type == "Add") {
      affine.factors.push_back(1);
      affine.offsets.push_back(value);
    } else if (node.op_type == "Sub") {
      affine.factors.push_back(constant == 1 ? 1 : -1);
      affine.offsets.push_back(constant == 1 ? -value : value);
    } else if (node.op_type == "Mul" || constant == 1) {
      affine.factors.push_back(node.op_type == "Mul" ? value : 1 / value);
      affine.offsets.push_back(0);
    } else {
      return std::nullopt;  // constant / x
    }
    // What a constant makes infinite stays where ONNX put it.
    if (!std::isfinite(affine.factors.back()) || !std::isfinite(affine.offsets.back())) {
      return std::nullopt;
    }
  }
  return affine;
}

std::optional<Folding> FindArithmetic(const Folder& folder, const Graph& graph, size_t at,
                                      std::string& reason) {
  const Node& node = graph.nodes[at];
  const size_t constant = folder.Constant(node, 1) != nullptr ? 1 : 0;
  const Tensor* numbers = folder.Constant(node, constant);
  if (numbers == nullptr || node.inputs.size() != 2) return std::nullopt;
  const Node* target = folder.TargetOf(node, node.inputs[1 - constant], reason);
  if (target == nullptr || target->op_type == "Gemm") return std::nullopt;
  const std::optional<int64_t> channels = folder.ChannelCount(*target);
  const int64_t rank = folder.Constant(*target, 1)->rank();
  if (!channels || !IsPerChannel(numbers->shape(), rank, *channels)) return std::nullopt;
  std::optional<Affine> affine = AffineOfArithmetic(node, constant, numbers->data<float>());
  if (!affine) return std::nullopt;
  affine->factors.resize(static_cast<size_t>(*channels), affine->factors[0]);
  affine->offsets.resize(static_cast<size_t>(*channels), affine->offsets[0]);
  return Folding{static_cast<size_t>(target - graph.nodes.data()), at, std::move(*affine)};
}

bool IsArithmetic(const Node& node) {
  return node.op_type == "Add" || node.op_type == "Sub" || node.op_type == "Mul" ||
         node.op_type == "Div";
}

// Folds the first node at or after `begin` that can be; false: none is left.
bool FoldNext(Graph& graph, size_t& begin, int64_t ir_version, FreshNames& names,
              const std::function<bool(const Node&)>& keep, std::vector<FoldNote>& notes) {
  Folder folder(graph, ir_version, names);
  for (; begin < graph.nodes.size(); ++begin) {
    const Node& node = graph.nodes[begin];
    const bool is_norm = node.op_type == "BatchNormalization";
    if (!node.domain.empty() || (!is_norm && !IsArithmetic(node))) continue;
    if (node.outputs.empty() || node.outputs[0].empty()) continue;
    std::string reason = keep(node) ? "excluded" : "";
    std::optional<Folding> folding;
    if (reason.empty()) {
      folding = is_norm ? FindBatchNorm(folder, graph, begin, reason)
                        : FindArithmetic(folder, graph, begin, reason);
    }
    if (!folding) {
      if (reason.empty()) reason = "its shape does not fit";
      if (is_norm) notes.push_back({NodeLabel(node), reason});
      continue;
    }
    notes.push_back({NodeLabel(node), ""});
    const std::string output = node.outputs[0];
    folder.Apply(graph.nodes[folding->target], folding->affine);
    KeepName(graph.nodes[folding->target], graph.nodes);
    graph.nodes[folding->target].outputs[0] = output;
    graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(folding->source));
    return true;
  }
  return false;
}

}  // namespace

std::vector<FoldNote> FoldAffine(Model& model, const std::function<bool(const Node&)>& keep) {
  std::vector<FoldNote> notes;
  FreshNames names(model);
  EditGraphs(model.graph, [&](Graph& graph) {
    size_t begin = 0;
    while (FoldNext(graph, begin, model.ir_version, names, keep, notes)) {
    }
    EraseDead(graph);
  });
  return notes;
}

void FoldAlpha(Model& model, const std::function<bool(const Node&)>& keep) {
  const GraphIndex index(model.graph);
  FreshNames names(model);
  for (Node& node : model.graph.nodes) {
    if (node.op_type != "Gemm" || node.Float("alpha", 1) == 1 || keep(node)) continue;
    const Tensor* weight = ConstantOf(model.graph, index, node.inputs[1], model.ir_version);
    if (weight == nullptr || weight->dtype() != DType::kFloat32) continue;
    std::vector<float> scaled = ToFloat(*weight);
    for (float& value : scaled) value *= node.Float("alpha", 1);
    const Shape shape = weight->shape();
    node.inputs[1] = names.Make(node.inputs[1] + "_scaled");
    model.graph.initializers.set(node.inputs[1],
                                 {Tensor::Make<float>(shape, std::move(scaled)), ""});
    node.attributes.erase_if([](const std::string& name, auto&) { return name == "alpha"; });
  }
}

}  // namespace pared
