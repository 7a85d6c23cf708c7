// LayerNormalization as a product and a sum of the input itself.
//
//   m = ReduceMean(x)   r = 1 / Sqrt(ReduceMean((x - m)^2) + e)
// Keras:         k = r * scale    y = x * k + (bias - m * k)                or bias + (-m) * k
// litert-torch:  y = x * R(r) + R(0 - m * r), where R shapes what was reduced to [..., 1]; scales
//                and biases follow, or have become part of the products that read y
//
// Before:  the nodes above          After:  y = LayerNormalization(x, scale, bias)

#include "evaluator/layer_norm_pattern.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "evaluator/fuse_graph.h"
#include "model/rewrite.h"

namespace pared {
namespace {

class SpreadNorm {
 public:
  SpreadNorm(const Graph& graph, const GraphIndex& index, int64_t ir_version,
             const std::unordered_map<std::string, ValueType>& types)
      : graph_(graph), index_(index), ir_version_(ir_version), types_(types) {}

  std::optional<FloatPattern> Find(const Node& add) const {
    for (const auto& [product, rest] : BothOrders(add)) {
      const Node* mul = Inner(product, "Mul", 1);
      const Node* other = index_.producer(rest);
      if (mul == nullptr || other == nullptr || !IsRead(rest, 1)) continue;
      for (const auto& [x, factor] : BothOrders(*mul)) {
        std::optional<Node> found =
            other->op_type == "Reshape" ? OfTorch(x, factor, *other) : OfKeras(x, factor, *other);
        if (found) return Finished(add, std::move(*found));
      }
    }
    return {};
  }

 private:
  using Pair = std::pair<std::string, std::string>;

  static std::vector<Pair> BothOrders(const Node& node) {
    if (node.inputs.size() != 2) return {};
    return {{node.inputs[0], node.inputs[1]}, {node.inputs[1], node.inputs[0]}};
  }

  bool IsRead(const std::string& value, size_t readers) const {
    return index_.consumers(value).size() == readers && !index_.is_output(value);
  }
  // What makes the value where it is of the type and has so many readers; null: it is not.
  const Node* Inner(const std::string& value, const std::string& op_type, size_t readers) const {
    const Node* node = index_.producer(value);
    const bool is_type = node != nullptr && node->domain.empty() && node->op_type == op_type;
    return is_type && IsRead(value, readers) ? node : nullptr;
  }
  std::optional<float> Scalar(const std::string& value) const {
    return ConstantNumber(graph_, index_, value, ir_version_);
  }
  // A constant [..., 1, n] of more than one element.
  const Tensor* Row(const std::string& value) const {
    const Tensor* row = ConstantOf(graph_, index_, value, ir_version_);
    const bool is_row = row != nullptr && row->dtype() == DType::kFloat32 && row->rank() > 0 &&
                        row->count() > 1 && row->shape().back() == row->count();
    return is_row ? row : nullptr;
  }
  const std::vector<Dim>* DimsOf(const std::string& value) const {
    const auto type = types_.find(value);
    return type == types_.end() || !type->second.shape ? nullptr : &*type->second.shape;
  }

  // The lengths of x, all of them known, with 1 as the last.
  bool IsRowShape(const std::string& value, const std::string& x) const {
    const std::vector<Dim>*given = DimsOf(value), *whole = DimsOf(x);
    if (given == nullptr || whole == nullptr || given->size() != whole->size()) return false;
    for (size_t i = 0; i + 1 < given->size(); ++i) {
      const bool is_same = (*given)[i].value >= 0 && (*given)[i].value == (*whole)[i].value;
      if (!is_same) return false;
    }
    return !given->empty() && given->back().value == 1;
  }

  // Whether the value is the mean of x over its last axis, and of others of length 1 that go.
  bool IsMean(const std::string& value, const std::string& x, size_t readers, bool keeps) const {
    const Node* mean = Inner(value, "ReduceMean", readers);
    if (mean == nullptr || mean->inputs[0] != x || (mean->Int("keepdims", 1) != 0) != keeps) {
      return false;
    }
    std::vector<int64_t> axes = mean->Ints("axes");
    if (mean->inputs.size() > 1) {
      const Tensor* given = ConstantOf(graph_, index_, mean->inputs[1], ir_version_);
      if (given == nullptr || given->dtype() != DType::kInt64) return false;
      axes.assign(given->data<int64_t>().begin(), given->data<int64_t>().end());
    }
    const std::vector<Dim>* dims = DimsOf(x);
    bool has_last = false;
    for (int64_t axis : axes) {
      if (dims != nullptr && axis < 0) axis += std::ssize(*dims);
      const bool is_last = dims == nullptr ? axis == -1 : axis == std::ssize(*dims) - 1;
      has_last = has_last || is_last;
      if (is_last) continue;
      if (dims == nullptr || axis < 0 || axis >= std::ssize(*dims)) return false;
      if ((*dims)[static_cast<size_t>(axis)].value != 1) return false;
    }
    return has_last;
  }

  // 1 / Sqrt(ReduceMean((x - mean)^2) + e): e.
  std::optional<float> EpsilonOf(const std::string& root, size_t readers, const std::string& x,
                                 const std::string& mean, bool keeps) const {
    const Node* inverse = Inner(root, "Reciprocal", readers);
    const Node* sqrt = inverse == nullptr ? nullptr : Inner(inverse->inputs[0], "Sqrt", 1);
    const Node* add = sqrt == nullptr ? nullptr : Inner(sqrt->inputs[0], "Add", 1);
    if (add == nullptr) return {};
    for (const auto& [variance, number] : BothOrders(*add)) {
      const std::optional<float> epsilon = Scalar(number);
      const Node* reduced = index_.producer(variance);
      if (!epsilon || reduced == nullptr || reduced->inputs.empty()) continue;
      const std::string& square = reduced->inputs[0];
      const Node* mul = Inner(square, "Mul", 1);
      if (mul == nullptr || mul->inputs[0] != mul->inputs[1]) continue;
      const Node* sub = Inner(mul->inputs[0], "Sub", 1);
      if (sub != nullptr && sub->inputs[0] == x && sub->inputs[1] == mean &&
          IsMean(variance, square, 1, keeps)) {
        return epsilon;
      }
    }
    return {};
  }

  static Node Norm(const std::string& x, const std::string& scale, const std::string& bias,
                   float epsilon) {
    Node node;
    node.op_type = "LayerNormalization";
    node.inputs = {x, scale, bias};
    SetFloat(node, "epsilon", epsilon);
    return node;
  }

  std::optional<Node> OfKeras(const std::string& x, const std::string& factor,
                              const Node& rest) const {
    const Node* scaled = Inner(factor, "Mul", 2);
    if (scaled == nullptr || rest.inputs.size() != 2) return {};
    // The bias, and the product of the mean, which is negated where it is added.
    const bool is_sub = rest.op_type == "Sub";
    if (!is_sub && rest.op_type != "Add") return {};
    for (const auto& [bias, taken] : BothOrders(rest)) {
      const Node* mul = Inner(taken, "Mul", 1);
      if (mul == nullptr || Row(bias) == nullptr || (is_sub && taken != rest.inputs[1])) continue;
      for (const auto& [shift, same] : BothOrders(*mul)) {
        const Node* negated = is_sub ? nullptr : Inner(shift, "Neg", 1);
        if (same != factor || (!is_sub && negated == nullptr)) continue;
        const std::string& mean = is_sub ? shift : negated->inputs[0];
        if (!IsMean(mean, x, 2, true)) continue;
        for (const auto& [root, scale] : BothOrders(*scaled)) {
          const std::optional<float> epsilon = EpsilonOf(root, 1, x, mean, true);
          if (epsilon && Row(scale) != nullptr) return Norm(x, scale, bias, *epsilon);
        }
      }
    }
    return {};
  }

  std::optional<Node> OfTorch(const std::string& x, const std::string& factor,
                              const Node& rest) const {
    const Node* shaped = Inner(factor, "Reshape", 1);
    const Node* sub = Inner(rest.inputs[0], "Sub", 1);
    const Node* mul = sub == nullptr ? nullptr : Inner(sub->inputs[1], "Mul", 1);
    if (shaped == nullptr || mul == nullptr || Scalar(sub->inputs[0]) != 0.0F) return {};
    const std::string& root = shaped->inputs[0];
    if (!IsRowShape(factor, x) || !IsRowShape(rest.outputs[0], x)) return {};
    for (const auto& [mean, same] : BothOrders(*mul)) {
      if (same != root || !IsMean(mean, x, 2, false)) continue;
      for (const Node* reader : index_.consumers(mean)) {
        if (reader->op_type != "Reshape" || !IsRead(reader->outputs[0], 1)) continue;
        const std::string& kept = reader->outputs[0];
        const std::optional<float> epsilon = EpsilonOf(root, 2, x, kept, false);
        if (epsilon && IsRowShape(kept, x)) return Norm(x, "", "", *epsilon);
      }
    }
    return {};
  }

  // With scale and bias as they are wanted: of one axis.
  std::optional<FloatPattern> Finished(const Node& add, Node node) const {
    FloatPattern pattern{static_cast<size_t>(&add - graph_.nodes.data()), {}, {}};
    const std::vector<Dim>* dims = DimsOf(node.inputs[0]);
    if (node.inputs[1].empty()) {
      const int64_t length = dims->back().value;
      if (length < 2 || types_.at(node.inputs[0]).dtype != DType::kFloat32) return {};
      const std::vector<float> ones(static_cast<size_t>(length), 1);
      pattern.constants.emplace_back(1, Tensor::Make<float>({length}, ones));
      node.inputs.pop_back();
      node.inputs[1] = add.outputs[0] + "_scale";
    } else {
      const Tensor *scale = Row(node.inputs[1]), *bias = Row(node.inputs[2]);
      const int64_t rank = std::max(scale->rank(), bias->rank());
      const bool fits = rank == 1 || (dims != nullptr && std::ssize(*dims) >= rank);
      const bool widens = dims != nullptr && (dims->empty() || dims->back().value == 1);
      if (!fits || widens || scale->count() != bias->count()) return {};
      for (const size_t i : {1, 2}) {
        const Tensor* row = Row(node.inputs[i]);
        if (row->rank() > 1) pattern.constants.emplace_back(i, row->Reshaped({row->count()}));
      }
    }
    node.name = add.name;
    node.outputs = add.outputs;
    pattern.node = std::move(node);
    return pattern;
  }

  const Graph& graph_;
  const GraphIndex& index_;
  int64_t ir_version_;
  const std::unordered_map<std::string, ValueType>& types_;
};

}  // namespace

std::optional<FloatPattern> FindSpreadLayerNorm(
    const Graph& graph, const GraphIndex& index, int64_t ir_version,
    const std::unordered_map<std::string, ValueType>& types, const Node& add) {
  return SpreadNorm(graph, index, ir_version, types).Find(add);
}

}  // namespace pared
