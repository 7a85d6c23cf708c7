#include "passes/loop_states.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "model/rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr size_t kLoopInputs = 2;  // trip count and condition, before the states

// What `value` of the graph is, across Identity nodes.
std::string Source(const GraphIndex& index, std::string value) {
  const Node* node = index.producer(value);
  while (node != nullptr && node->domain.empty() && node->op_type == "Identity" &&
         !node->inputs.empty()) {
    value = node->inputs[0];
    node = index.producer(value);
  }
  return value;
}

// States, by number, that begin with a constant and never change.
std::vector<size_t> FindConstantStates(const Graph& graph, const GraphIndex& index,
                                       int64_t ir_version, const Node& loop, const Graph& body) {
  std::vector<size_t> found;
  if (loop.inputs.size() < kLoopInputs || body.inputs.size() != loop.inputs.size()) return found;
  const GraphIndex within(body);
  for (size_t i = 0; i + kLoopInputs < loop.inputs.size(); ++i) {
    const std::string& state = body.inputs[i + kLoopInputs].name;
    const auto is_state = [&](const ValueInfo& output) {
      return Source(within, output.name) == state;
    };
    const bool is_handed_on = i + 1 < body.outputs.size() && is_state(body.outputs[i + 1]) &&
                              std::ranges::count_if(body.outputs, is_state) == 1;
    const std::string& result = i < loop.outputs.size() ? loop.outputs[i] : std::string();
    const std::string& initial = loop.inputs[i + kLoopInputs];
    if (is_handed_on && !index.is_output(result) &&
        ConstantOf(graph, index, initial, ir_version) != nullptr) {
      found.push_back(i);
    }
  }
  return found;
}

void Free(Graph& graph, size_t at, const std::vector<size_t>& states) {
  Node loop = std::move(graph.nodes[at]);
  EditSubgraphs(loop, [&](Graph& body) {
    for (const size_t i : states) {
      ReplaceUses(body, body.inputs[i + kLoopInputs].name, loop.inputs[i + kLoopInputs]);
    }
    // The last first, so that numbers hold.
    for (auto i = states.rbegin(); i != states.rend(); ++i) {
      const auto state = static_cast<std::ptrdiff_t>(*i);
      body.inputs.erase(body.inputs.begin() + state + kLoopInputs);
      body.outputs.erase(body.outputs.begin() + state + 1);
    }
    EraseDead(body);
  });
  for (auto i = states.rbegin(); i != states.rend(); ++i) {
    const auto state = static_cast<std::ptrdiff_t>(*i);
    if (*i < loop.outputs.size()) {
      if (!loop.outputs[*i].empty()) {
        ReplaceUses(graph, loop.outputs[*i], loop.inputs[*i + kLoopInputs]);
      }
      loop.outputs.erase(loop.outputs.begin() + state);
    }
    loop.inputs.erase(loop.inputs.begin() + state + kLoopInputs);
  }
  graph.nodes[at] = std::move(loop);
}

}  // namespace

Json FreeLoopConstants(Model& model) {
  Json freed = Json::array();
  EditGraphs(model.graph, [&](Graph& graph) {
    for (size_t at = 0; at < graph.nodes.size(); ++at) {
      const Node& node = graph.nodes[at];
      if (!node.domain.empty() || node.op_type != "Loop") continue;
      const std::vector<GraphPtr> bodies = SubgraphsOf(node);
      if (bodies.size() != 1) continue;
      const std::vector<size_t> states =
          FindConstantStates(graph, GraphIndex(graph), model.ir_version, node, *bodies[0]);
      if (states.empty()) continue;
      for (const size_t i : states) {
        freed.push_back({{"node", NodeLabel(node)}, {"value", node.inputs[i + kLoopInputs]}});
      }
      Free(graph, at, states);
    }
  });
  return freed;
}

}  // namespace pared
