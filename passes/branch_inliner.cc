#include "passes/branch_inliner.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "model/domain.h"

namespace pared {
namespace {

using Renames = std::unordered_map<std::string, std::string>;

// The names that values get in this graph, its inputs apart: a branch of If has none.
std::vector<std::string> AssignedNames(const Graph& graph) {
  std::vector<std::string> names;
  for (const auto& [name, initializer] : graph.initializers) names.push_back(name);
  for (const auto& [name, sparse] : graph.sparse_initializers) names.push_back(name);
  for (const Node& node : graph.nodes) {
    std::ranges::copy_if(node.outputs, std::back_inserter(names),
                         [](const std::string& output) { return !output.empty(); });
  }
  return names;
}

void Rename(std::string& name, const Renames& renames) {
  const auto found = renames.find(name);
  if (found != renames.end()) name = found->second;
}

template <class T>
NamedList<T> Renamed(const NamedList<T>& list, const Renames& renames) {
  NamedList<T> renamed;
  for (const auto& [name, value] : list) {
    std::string key = name;
    Rename(key, renames);
    renamed.set(key, value);
  }
  return renamed;
}

// What a subgraph reads from outside.
void RenameCaptured(Graph& graph, Renames renames) {
  for (const std::string& own : AssignedNames(graph)) renames.erase(own);
  for (const ValueInfo& input : graph.inputs) renames.erase(input.name);
  if (renames.empty()) return;
  for (Node& node : graph.nodes) {
    for (std::string& input : node.inputs) Rename(input, renames);
    EditSubgraphs(node, [&](Graph& inner) { RenameCaptured(inner, renames); });
  }
  for (ValueInfo& output : graph.outputs) Rename(output.name, renames);
}

void RenameAll(Graph& body, const Renames& renames) {
  if (renames.empty()) return;
  body.initializers = Renamed(body.initializers, renames);
  body.sparse_initializers = Renamed(body.sparse_initializers, renames);
  body.values = Renamed(body.values, renames);
  for (Node& node : body.nodes) {
    for (std::string& input : node.inputs) Rename(input, renames);
    for (std::string& output : node.outputs) Rename(output, renames);
    EditSubgraphs(node, [&](Graph& inner) { RenameCaptured(inner, renames); });
  }
}

template <class T>
void MoveInto(NamedList<T>& from, NamedList<T>& to) {
  for (const auto& [name, value] : from) to.set(name, value);
}

}  // namespace

bool IsIf(const Node& node) {
  return node.op_type == "If" && IsDefaultDomain(node.domain) && node.inputs.size() == 1;
}

GraphPtr BranchOf(const Node& node, bool taken) {
  return node.GraphOf(taken ? "then_branch" : "else_branch");
}

void BranchInliner::Count(const Graph& graph, int change) {
  for (const std::string& name : AssignedNames(graph)) counts_.values[name] += change;
  for (const ValueInfo& input : graph.inputs) counts_.values[input.name] += change;
  for (const Node& node : graph.nodes) {
    counts_.nodes[node.name] += change;
    for (const GraphPtr& inner : SubgraphsOf(node)) Count(*inner, change);
  }
}

std::string BranchInliner::NameOfValue(const std::string& name) {
  const auto count = counts_.values.find(name);
  return count != counts_.values.end() && count->second > 1 ? names_.Make(name) : name;
}

std::string BranchInliner::NameOfNode(const std::string& name) {
  const auto count = counts_.nodes.find(name);
  const bool is_shared = count != counts_.nodes.end() && count->second > 1;
  return is_shared && !name.empty() ? names_.Make(name) : name;
}

size_t BranchInliner::Inline(Graph& graph, size_t at, bool taken) {
  if (!std::exchange(is_counted_, true)) Count(model_.graph, 1);
  const Node node = graph.nodes[at];
  if (const GraphPtr other = BranchOf(node, !taken)) Count(*other, -1);
  Graph body = *BranchOf(node, taken);
  Renames renames;
  std::vector<std::pair<std::string, std::string>> handed_on;  // from the branch, to the If's name
  const std::vector<std::string> assigned = AssignedNames(body);
  const std::unordered_set<std::string> own(assigned.begin(), assigned.end());
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const std::string &inner = body.outputs[i].name, &outer = node.outputs[i];
    if (outer.empty()) continue;
    const bool is_stored =
        body.initializers.contains(inner) || body.sparse_initializers.contains(inner);
    const bool gets_name = own.contains(inner) && !(is_stored && IsAmong(graph.outputs, outer));
    if (!gets_name || !renames.emplace(inner, outer).second) handed_on.emplace_back(inner, outer);
  }
  for (const std::string& name : assigned) {
    if (renames.contains(name)) continue;
    std::string kept = NameOfValue(name);
    if (kept != name) renames.emplace(name, std::move(kept));
  }
  RenameAll(body, renames);
  for (Node& inner : body.nodes) inner.name = NameOfNode(inner.name);
  // What the model says of the If's outputs may hold for the other branch.
  graph.values.erase_if([&](const std::string& name, const ValueInfo&) {
    return std::ranges::find(node.outputs, name) != node.outputs.end();
  });
  MoveInto(body.initializers, graph.initializers);
  MoveInto(body.sparse_initializers, graph.sparse_initializers);
  MoveInto(body.values, graph.values);
  for (auto& [inner, outer] : handed_on) {
    Rename(inner, renames);
    if (!IsAmong(graph.outputs, outer)) continue;
    body.nodes.push_back(MakeNode("Identity", {inner}, outer, names_));
  }
  const size_t count = body.nodes.size();
  const auto place = graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(at));
  graph.nodes.insert(place, std::make_move_iterator(body.nodes.begin()),
                     std::make_move_iterator(body.nodes.end()));
  for (const auto& [inner, outer] : handed_on) {
    if (!IsAmong(graph.outputs, outer)) ReplaceUses(graph, outer, inner);
  }
  return count;
}

}  // namespace pared
