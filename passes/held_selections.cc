#include "passes/held_selections.h"

#include <algorithm>
#include <unordered_set>

#include "passes/judged_values.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

constexpr int64_t kOpsetOfGatherElements = 11;

// Operators whose results have as many elements as the data says, and whose places are not seen.
const Names kVarying = {"Compress", "Unique", "If", "Loop", "Scan"};

std::vector<std::string> ReadBy(const Node& node) {
  std::vector<std::string> read = node.inputs;
  const std::vector<std::string> captured = CapturedNamesOf(node);
  read.insert(read.end(), captured.begin(), captured.end());
  return read;
}

bool IsAnyOf(const std::vector<std::string>& values, const Names& names) {
  return std::ranges::any_of(values, [&](const auto& value) { return names.contains(value); });
}

// The values that follow from more of the inputs than their shapes.
Names FindData(const Graph& graph) {
  Names data;
  for (const ValueInfo& input : CallerInputs(graph)) data.insert(input.name);
  for (const Node& node : graph.nodes) {
    if (node.op_type == "Shape" || node.op_type == "Size" || !IsAnyOf(ReadBy(node), data)) continue;
    data.insert(node.outputs.begin(), node.outputs.end());
  }
  data.erase("");
  return data;
}

// Empty: they are no output.
std::string PlacesOf(const Node& node) {
  if (node.op_type == "TopK") return node.outputs.size() > 1 ? node.outputs[1] : "";
  return node.outputs.size() == 1 ? node.outputs[0] : "";
}

}  // namespace

std::vector<std::string> FindSelections(const Model& model,
                                        const std::vector<std::string>& judged) {
  std::vector<std::string> selections;
  if (model.Opset("") < kOpsetOfGatherElements) return selections;
  const Names data = FindData(model.graph);
  Names needed(judged.begin(), judged.end());
  const std::vector<Node>& nodes = model.graph.nodes;
  for (auto node = nodes.rbegin(); node != nodes.rend(); ++node) {
    if (!IsAnyOf(node->outputs, needed)) continue;
    const std::vector<std::string> read = ReadBy(*node);
    needed.insert(read.begin(), read.end());
    if (!IsAnyOf(read, data)) continue;
    const bool selects = Selects(*node);
    const std::string places = selects ? PlacesOf(*node) : "";
    if (selects ? places.empty() : kVarying.contains(node->op_type)) return {};
    if (selects) selections.push_back(places);
  }
  std::ranges::reverse(selections);
  return selections;
}

void FeedSelections(Model& model, const std::vector<std::string>& selections) {
  const Names fed(selections.begin(), selections.end());
  std::vector<Node> nodes;
  for (Node& node : model.graph.nodes) {
    const auto places = std::ranges::find_if(
        node.outputs, [&](const std::string& output) { return fed.contains(output); });
    if (places == node.outputs.end()) {
      nodes.push_back(std::move(node));
    } else if (node.op_type == "TopK" && !node.outputs[0].empty()) {
      Node values;
      values.op_type = "GatherElements";
      values.name = node.name;
      values.inputs = {node.inputs[0], *places};
      values.outputs = {node.outputs[0]};
      values.attributes.set("axis", {2, node.Int("axis", -1), "", ""});
      nodes.push_back(std::move(values));
    }
  }
  model.graph.nodes = std::move(nodes);
  std::erase_if(model.graph.outputs,
                [&](const ValueInfo& output) { return fed.contains(output.name); });
  for (const std::string& name : selections) {
    ValueInfo input;
    input.name = name;
    input.dtype = DType::kInt64;
    model.graph.inputs.push_back(std::move(input));
  }
}

}  // namespace pared
