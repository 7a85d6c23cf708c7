// The few edits that passes share. None looks at what it edits for; each keeps Verify() true.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/graph.h"

namespace pared {

// Makes names that no value or node of the model has, subgraphs and functions included.
class FreshNames {
 public:
  explicit FreshNames(const Model& model);

  // `base` itself where it is free, else base_1, base_2, ... The name is taken from then on.
  std::string Make(const std::string& base);

 private:
  std::unordered_set<std::string> taken_;
  std::unordered_map<std::string, int64_t> next_;  // the last number tried of each base
};

// Has the model import version `version` of the domain where it imports none.
void ImportDomain(Model& model, const std::string& domain, int64_t version);

// A node of one output, called after it and the operator.
Node MakeNode(const std::string& op_type, std::vector<std::string> inputs, std::string output,
              FreshNames& names);
Node MakeCast(const std::string& from, const std::string& to, DType dtype, FreshNames& names);

// Calls `edit` for a copy of each graph that is an attribute of the node, which takes its place.
void EditSubgraphs(Node& node, const std::function<void(Graph&)>& edit);

// Lets every reader of `from` (nodes, also within subgraphs, but not the graph's outputs) read
// `to`.
void ReplaceUses(Graph& graph, const std::string& from, const std::string& to);

// Removes nodes whose outputs nobody reads, then initializers and value_info that nobody names.
// Graph inputs and outputs stay.
void EraseDead(Graph& graph);

// Leaves what makes `values`, which become the outputs.
void KeepPart(Graph& graph, const std::vector<std::string>& values);

}  // namespace pared
