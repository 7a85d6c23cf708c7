// Branches of If that are known to be taken, written into the graph around.

#pragma once

#include <cstddef>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "model/rewrite.h"

namespace pared {

bool IsIf(const Node& node);

// The branch that the If takes where its condition is `taken`; null: it has none.
GraphPtr BranchOf(const Node& node, bool taken);

// Of one model, whose graphs are edited.
class BranchInliner {
 public:
  explicit BranchInliner(const Model& model) : names_(model), model_(model) {}

  FreshNames& names() { return names_; }

  // Before:  y = If(c) { then: p = MatMul(x, w)  else: q = Neg(x) }       After:  y = MatMul(x, w)
  //
  // Puts the branch in the place of nodes[at] and returns how many nodes that are. The outputs keep
  // the If's names. Names of the branch that stand elsewhere too are made fresh. What the branch
  // only hands on is read under its own name, or made an output of `graph` by an Identity.
  size_t Inline(Graph& graph, size_t at, bool taken);

 private:
  struct Names {
    std::unordered_map<std::string, int> values, nodes;  // how many graphs assign them
  };
  void Count(const Graph& graph, int change);
  std::string NameOfValue(const std::string& name);
  std::string NameOfNode(const std::string& name);

  FreshNames names_;
  const Model& model_;
  bool is_counted_ = false;
  Names counts_;
};

}  // namespace pared
