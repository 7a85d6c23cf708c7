// Which nodes an option means: a node name, "re:REGEX" over whole node names, or "op:OP_TYPE". A
// node without a name goes by that of its first output.

#pragma once

#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

#include "model/graph.h"

namespace pared {

// What references call the node; empty: it has neither a name nor an output.
const std::string& NameOf(const Node& node);

// Gives an unnamed node, whose output is about to get another name, the name it went by; not where
// one of `nodes`, its neighbours, has that.
void KeepName(Node& node, const std::vector<Node>& nodes);

// Calls `visit` for every node of the graph and, after their node, of its subgraphs.
void ForEachNode(const Graph& graph, const std::function<void(const Node&)>& visit);

// Whether `is_wanted` holds for one of these nodes.
bool HasNode(const Graph& graph, const std::function<bool(const Node&)>& is_wanted);

// As ForEachNode, to edit: subgraphs are copied before their nodes are visited. `visit` gets each
// graph once, the outer before the inner.
void EditGraphs(Graph& graph, const std::function<void(Graph&)>& visit);

// The addresses of the nodes of `model` that one of `references` selects; they hold as long as
// the model is not edited. Throws kInvalidArgument, with the nearest names, where a reference
// selects nothing: a misspelt exclusion must not be silent.
std::unordered_set<const Node*> SelectNodes(const Model& model,
                                            const std::vector<std::string>& references,
                                            const std::string& where);

// Whether one of the references selects a node, with each pattern compiled once.
std::function<bool(const Node&)> SelectorOf(const std::vector<std::string>& references);

// The up to three of `names` that are nearest to `name` by edit distance.
std::vector<std::string> NearestNames(const std::string& name,
                                      const std::vector<std::string>& names);

// "a", "b", "c" or (none)
std::string JoinNames(const std::vector<std::string>& names);

}  // namespace pared
