#include "passes/store_half.h"

#include <numeric>

#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/fp16_nodes.h"
#include "passes/index_values.h"
#include "passes/opset_raise.h"
#include "passes/select_nodes.h"
#include "passes/stored_weights.h"
#include "passes/weights.h"
#include "passes/widen_halves.h"

namespace pared {
namespace {

constexpr int64_t kOpsetOfBFloat16 = 13;  // Cast

std::unordered_set<std::string> ReadBy(const std::unordered_set<const Node*>& nodes) {
  std::unordered_set<std::string> values;
  for (const Node* node : nodes) values.insert(node->inputs.begin(), node->inputs.end());
  return values;
}

}  // namespace

Model StoreInHalf(Model model, DType dtype, const std::unordered_set<const Node*>& excluded,
                  PassContext& context) {
  const std::unordered_set<std::string> kept = ReadBy(excluded);
  const std::unordered_set<std::string> integers = ReadBy(NodesOfIntegers(model));
  const Model before = model;
  if (model.ir_version < 4) DropInitializerInputs(model);
  Json& report = context.report;
  report["raised"] = Json::array();
  report["changed"] = Json::array();
  report["skipped"] = Json::array();
  FreshNames names(model);
  const std::filesystem::path spill = SpillFolder(model, context.scratch);
  std::vector<int64_t> small;  // elements of each
  const auto changes = [&](const std::string& name, const Tensor& tensor, bool is_input) {
    if (tensor.dtype() != DType::kFloat32) return false;
    if (tensor.count() < kWorthACast) {
      small.push_back(tensor.count());
      return false;
    }
    std::string reason;
    if (kept.contains(name)) reason = "an excluded node reads it";
    if (integers.contains(name)) reason = kEndsAsIntegers;
    if (is_input) reason = "it is a default that a caller may override";
    if (dtype == DType::kFloat16 && reason.empty() && !FitsHalf(LossOf(tensor))) {
      reason = "float16 does not hold it";
    }
    report[reason.empty() ? "changed" : "skipped"].push_back({{"weight", name}});
    if (!reason.empty()) report["skipped"].back()["reason"] = reason;
    return reason.empty();
  };
  EditGraphs(model.graph, [&](Graph& graph) {
    std::vector<Node> nodes;
    const auto add_cast = [&](const std::string& name) {
      const std::string stored = names.Make(name + "_" + std::string(DTypeName(dtype)));
      nodes.push_back(MakeCast(stored, name, DType::kFloat32, names));
      return stored;
    };
    const NamedList<Initializer> initializers = graph.initializers;
    for (const auto& [name, initializer] : initializers) {
      if (!changes(name, initializer.tensor, IsAmong(graph.inputs, name))) continue;
      graph.initializers.set(add_cast(name),
                             {Spilled(InHalf(initializer.tensor, dtype), spill), ""});
      graph.initializers.erase_if(
          [&old = name](const std::string& other, const auto&) { return other == old; });
      initializer.tensor.DropPages();
    }
    for (Node& node : graph.nodes) {
      const Tensor* value = node.op_type == "Constant" ? node.TensorOf("value") : nullptr;
      if (value == nullptr || !changes(node.outputs[0], *value, false)) {
        nodes.push_back(std::move(node));
        continue;
      }
      const std::string stored = add_cast(node.outputs[0]);
      const Tensor narrowed = Spilled(InHalf(*value, dtype), spill);
      value->DropPages();
      node.attributes.find("value")->value = narrowed;
      node.outputs[0] = stored;
      nodes.insert(nodes.end() - 1, std::move(node));
    }
    graph.nodes = std::move(nodes);
  });
  if (!small.empty()) {
    const int64_t elements = std::accumulate(small.begin(), small.end(), int64_t{0});
    report["skipped"].push_back({{"weight", std::to_string(small.size()) + " constants of " +
                                                std::to_string(elements) + " elements in all"},
                                 {"reason", "each has fewer than " + std::to_string(kWorthACast) +
                                                ": a Cast costs more than they would save"}});
  }
  if (report["changed"].empty()) return before;
  report["raised"] = RaiseOpset(model, kOpsetOfBFloat16);
  return model;
}

}  // namespace pared
