// Dynamic quantization: integer products of activations whose scale is found while the model runs.
//
// Before:  q, s, z = DynamicQuantizeLinear(x)   c = Cast(ConvInteger(q, w, z, wz))
//          y = Relu(Add(Mul(c, Mul(s, ws)), b))
// After:   q, s, z = DynamicQuantizeLinear(x)   y = ConvIntegerToFloat(q, w, z, wz, Mul(s, ws), b)
//
// The same with MatMulInteger; bias and Relu may be missing. The sums stay exact and the float
// operations are those of the nodes, in their order, so results are the same bits. Declines where
// weights are not constant, or where scale or bias are neither one number nor one for each channel.

#include <algorithm>
#include <unordered_set>

#include "evaluator/fuse_graph.h"

namespace pared {
namespace {

constexpr int64_t kMaxK = 65536;  // kernels/gemm.h

bool Is(const Node* node, const std::string& op_type) {
  return node != nullptr && node->domain.empty() && node->op_type == op_type;
}

struct Found {
  const Node* product = nullptr;  // ConvInteger or MatMulInteger
  std::string scale, bias;        // values; bias "": none
  bool relu = false;
};

class DynamicFusion {
 public:
  explicit DynamicFusion(FuseGraph& graph) : graph_(graph) {}

  void Run() {
    const std::vector<Node>& nodes = graph_.graph().nodes;
    // From the back, so that a Relu is seen before the Add and Mul that it follows.
    for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
      const std::optional<Found> found = Match(*node);
      if (found && taken_.insert(found->product).second) Fuse(*node, *found);
    }
  }

 private:
  // The node that makes `value` for its one reader.
  const Node* Inner(const std::string& value) const {
    return graph_.IsInner(value) ? graph_.producer(value) : nullptr;
  }

  std::optional<Found> Match(const Node& last) {
    Found found;
    const Node* node = &last;
    if (Is(node, "Relu")) {
      found.relu = true;
      node = Inner(node->inputs[0]);
    }
    if (Is(node, "Add")) {
      for (size_t i = 0; i < 2; ++i) {
        const Node* scaled = Inner(node->inputs[i]);
        if (!Is(scaled, "Mul") || !MatchScaled(*scaled, found)) continue;
        found.bias = node->inputs[1 - i];
        if (Suits(found, found.bias)) return found;
      }
      return {};
    }
    if (Is(node, "Mul") && MatchScaled(*node, found)) return found;
    return {};
  }

  bool MatchScaled(const Node& mul, Found& found) {
    for (size_t i = 0; i < 2; ++i) {
      const Node* cast = Inner(mul.inputs[i]);
      if (!Is(cast, "Cast") || cast->Int("to", 0) != static_cast<int64_t>(DType::kFloat32))
        continue;
      found.product = Inner(cast->inputs[0]);
      found.scale = mul.inputs[1 - i];
      const bool is_product =
          Is(found.product, "ConvInteger") || Is(found.product, "MatMulInteger");
      if (is_product && TakesConstants(*found.product) && Suits(found, found.scale)) return true;
    }
    return false;
  }

  int64_t ChannelsOf(const Node& product) const {
    const Shape& w = graph_.constant(product.inputs[1])->shape();
    return product.op_type == "ConvInteger" ? w[0] : w[1];
  }

  // Whether weights are constant and activations have one zero point: integer_product.h.
  bool TakesConstants(const Node& product) const {
    const Tensor* w = graph_.constant(product.inputs[1]);
    if (w == nullptr || (w->dtype() != DType::kUInt8 && w->dtype() != DType::kInt8)) return false;
    const bool is_conv = product.op_type == "ConvInteger";
    if (w->count() == 0 || (is_conv ? w->rank() != 3 && w->rank() != 4 : w->rank() != 2))
      return false;
    if ((is_conv ? w->count() / w->shape()[0] : w->shape()[0]) >= kMaxK) return false;
    const Node* quantize = graph_.producer(product.inputs[0]);
    if (!Is(quantize, "DynamicQuantizeLinear")) return false;
    if (product.inputs.size() < 3 || product.inputs[2] != quantize->outputs[2]) return false;
    if (product.inputs.size() < 4 || product.inputs[3].empty()) return true;
    const Tensor* zero = graph_.constant(product.inputs[3]);
    return zero != nullptr && (zero->count() == 1 || zero->count() == ChannelsOf(product));
  }

  // One number, or one for each channel along the channels' axis: [1,M,1,1] or [M].
  bool Suits(const Found& found, const std::string& value) {
    const std::optional<Shape> shape = graph_.ShapeOf(value);
    const std::optional<Shape> product = graph_.ShapeOf(found.product->inputs[1]);
    if (!shape || !product) return false;
    const bool is_conv = found.product->op_type == "ConvInteger";
    const int64_t rank =
        is_conv ? static_cast<int64_t>(product->size()) : graph_.RankOf(found.product->inputs[0]);
    if (rank < 0 || static_cast<int64_t>(shape->size()) > rank) return false;
    if (ElementCount(*shape) == 1) return true;
    if (ElementCount(*shape) != ChannelsOf(*found.product)) return false;
    const size_t behind = is_conv ? static_cast<size_t>(rank) - 2 : 0;  // axes after the channels
    return shape->size() > behind && (*shape)[shape->size() - 1 - behind] == ElementCount(*shape);
  }

  void Fuse(const Node& last, const Found& found) {
    Node node = MakeInt8Node(found.product->op_type + "ToFloat", found.product->name,
                             found.product->inputs);
    node.inputs.resize(6);
    node.inputs[4] = found.scale;
    node.inputs[5] = found.bias;
    node.attributes = found.product->attributes;
    SetInt(node, "relu", found.relu ? 1 : 0);
    graph_.Replace(last, std::move(node));
  }

  FuseGraph& graph_;
  std::unordered_set<const Node*> taken_;
};

}  // namespace

void FuseDynamic(FuseGraph& graph) { DynamicFusion(graph).Run(); }

}  // namespace pared
