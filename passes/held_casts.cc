#include "passes/held_casts.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "model/rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

bool Is(const Node* node, const char* op_type) {
  return node != nullptr && node->op_type == op_type && node->domain.empty() &&
         !node->outputs.empty();
}

class Finder {
 public:
  explicit Finder(const Graph& graph) : index_(graph) {}

  // The Cast to hold of what `mean` begins; null: none.
  const Node* CastAt(const Node& mean) const {
    if (!Is(&mean, "ReduceMean") || mean.inputs.empty()) return nullptr;
    const std::vector<const Node*>& subs = index_.consumers(mean.outputs[0]);
    if (subs.empty() || subs.size() > 2) return nullptr;
    const bool are_subs = std::ranges::all_of(subs, [&](const Node* sub) {
      return Is(sub, "Sub") && std::ranges::count(sub->inputs, mean.inputs[0]) > 0;
    });
    if (!are_subs) return nullptr;
    std::vector<const Node*> casts;
    const Node* before = index_.producer(mean.inputs[0]);
    if (IsCast(before, subs.size() + 1)) casts.push_back(before);
    const Node* centered = subs[0];
    const Node* behind = OnlyReader(*centered);
    if (subs.size() == 1 && IsCast(behind, 2)) casts.push_back(centered = behind);
    const Node* div = ReaderOf(*centered, "Div");
    if (div == nullptr && subs.size() == 2) div = ReaderOf(*subs[1], "Div");
    if (div == nullptr || !DividesByDeviation(*div)) return nullptr;
    const Node* next = OnlyReader(*div);
    if (IsCast(next, 1)) {
      casts.push_back(next);
      next = OnlyReader(*next);
    }
    const bool is_scaled = Is(next, "Mul") && Is(OnlyReader(*next), "Add");
    return is_scaled && casts.size() % 2 == 1 ? casts.back() : nullptr;
  }

 private:
  bool IsCast(const Node* node, size_t readers) const {
    return Is(node, "Cast") && !index_.is_output(node->outputs[0]) &&
           index_.consumers(node->outputs[0]).size() == readers;
  }

  const Node* OnlyReader(const Node& node) const {
    const auto& readers = index_.consumers(node.outputs[0]);
    return readers.size() == 1 ? readers[0] : nullptr;
  }

  const Node* ReaderOf(const Node& node, const char* op_type) const {
    const auto& readers = index_.consumers(node.outputs[0]);
    const auto found = std::ranges::find_if(readers, [&](const Node* n) { return Is(n, op_type); });
    return found == readers.end() ? nullptr : *found;
  }

  const Node* MakerOf(const Node& node, const char* op_type) const {
    for (const std::string& input : node.inputs) {
      if (const Node* maker = index_.producer(input); Is(maker, op_type)) return maker;
    }
    return nullptr;
  }

  // By the root of a mean of squares, with something added.
  bool DividesByDeviation(const Node& div) const {
    const Node* at = &div;
    for (const char* op_type : {"Sqrt", "Add", "ReduceMean", "Pow"}) {
      at = MakerOf(*at, op_type);
      if (at == nullptr) return false;
    }
    return true;
  }

  const GraphIndex index_;
};

// The outputs of the Casts to hold.
std::vector<std::string> FindHeld(const Graph& graph) {
  const auto is_mean = [](const Node& node) { return Is(&node, "ReduceMean"); };
  std::vector<std::string> held;
  if (std::ranges::none_of(graph.nodes, is_mean)) return held;
  const Finder finder(graph);
  for (const Node& node : graph.nodes) {
    if (const Node* cast = finder.CastAt(node)) held.push_back(cast->outputs[0]);
  }
  return held;
}

void Hold(Graph& graph, const std::string& value, FreshNames& names) {
  const std::string held = names.Make(value + "_held");
  ReplaceUses(graph, value, held);
  const auto cast = std::ranges::find_if(
      graph.nodes, [&](const Node& node) { return std::ranges::count(node.outputs, value) > 0; });
  graph.nodes.insert(cast + 1, MakeNode("Sum", {value}, held, names));
}

}  // namespace

void HoldCasts(Model& model) {
  std::optional<FreshNames> names;
  EditGraphs(model.graph, [&](Graph& graph) {
    for (const std::string& value : FindHeld(graph)) {
      if (!names) names.emplace(model);
      Hold(graph, value, *names);
    }
  });
}

}  // namespace pared
