#include "passes/int8_smooth.h"

#include "model/rewrite.h"
#include "passes/int8_params.h"

namespace pared {
namespace {

bool IsProduct(const Int8Choice& choice, const Node& node) {
  const auto site = choice.weights.find(&node);
  if (site == choice.weights.end() || site->second->input != 1) return false;
  if (node.op_type == "Gemm") return node.Int("transA", 0) == 0;
  return node.op_type == "MatMul" && site->second->shape.size() == 2;
}

class Smoother {
 public:
  Smoother(const Int8ChoiceContext& context, const Int8Choice& choice)
      : context_(context), choice_(choice), names_(*context.model) {}

  Smoothing Run(const SmoothingFactors& factors) {
    Smoothing result{*context_.model, {}};
    Graph& out = result.model.graph;
    out.nodes.clear();
    std::unordered_map<std::string, std::string> smoothed;
    for (const Node& node : context_.model->graph.nodes) {
      Node copy = node;
      const auto of_value = factors.find(node.inputs.empty() ? "" : node.inputs[0]);
      if (of_value != factors.end() && IsProduct(choice_, node)) {
        const std::string& value = of_value->first;
        if (!smoothed.contains(value)) {
          smoothed[value] = AddDivision(value, of_value->second, out);
          result.values.push_back(value);
        }
        copy.inputs[0] = smoothed.at(value);
        copy.inputs[1] = AddWeight(*choice_.weights.at(&node), of_value->second, out);
      }
      out.nodes.push_back(std::move(copy));
    }
    EraseDead(out);
    return result;
  }

 private:
  std::string AddDivision(const std::string& value, const std::vector<float>& factors,
                          Graph& graph) {
    std::vector<float> inverse;
    for (const float factor : factors) inverse.push_back(1 / factor);
    const std::string result = names_.Make(value + "_smoothed");
    const std::string factor = names_.Make(value + "_smoothing");
    graph.nodes.push_back(MakeNode("Mul", {value, factor}, result, names_));
    const Shape shape = {std::ssize(inverse)};
    graph.initializers.set(factor, {Tensor::Make<float>(shape, std::move(inverse)), ""});
    return result;
  }

  std::string AddWeight(const WeightSite& site, const std::vector<float>& factors, Graph& graph) {
    std::vector<float> elements = ViewedElements(site);
    for (int64_t row = 0; row < site.layout.rows; ++row) {
      for (int64_t k = 0; k < site.layout.k; ++k) {
        elements[static_cast<size_t>(site.layout.Index(0, row, k))] *=
            factors[static_cast<size_t>(k)];
      }
    }
    const std::string name = names_.Make(site.node->inputs[1] + "_smoothed");
    graph.initializers.set(name, {Tensor::Make<float>(site.shape, std::move(elements)), ""});
    return name;
  }

  const Int8ChoiceContext& context_;
  const Int8Choice& choice_;
  FreshNames names_;
};

}  // namespace

std::vector<const WeightSite*> SmoothableProducts(const Int8ChoiceContext& context,
                                                  const Int8Choice& choice,
                                                  const std::string& value) {
  std::vector<const WeightSite*> products;
  if (choice.only_quantized.contains(value)) return {};
  if (FixedRange(value, *context.model, *context.index)) return {};  // no channel stands out
  for (const Node* reader : context.index->consumers(value)) {
    if (!IsProduct(choice, *reader) || reader->inputs[0] != value) continue;
    const WeightSite* site = choice.weights.at(reader);
    const bool owns_weight = context.index->consumers(site->root.second).size() == 1 &&
                             context.index->consumers(reader->inputs[1]).size() == 1;
    if (!owns_weight || site->layout.groups != 1) return {};
    products.push_back(site);
  }
  return products;
}

Smoothing SmoothInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                     const SmoothingFactors& factors) {
  return Smoother(context, choice).Run(factors);
}

}  // namespace pared
