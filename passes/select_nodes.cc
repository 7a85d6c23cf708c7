#include "passes/select_nodes.h"

#include <algorithm>
#include <regex>
#include <set>

#include "base/error.h"
#include "config/edit_distance.h"
#include "config/fields.h"
#include "model/rewrite.h"

namespace pared {
namespace {

constexpr size_t kNearestCount = 3;
// Longer names are compared by their beginning, so that a hostile model costs no time.
constexpr size_t kComparedLength = 128;

// A name that holds the one sought (or is held by it) is nearer than any other: the full path of
// "encoder" is what its user meant.
size_t Distance(const std::string& sought, const std::string& name) {
  const size_t edits = EditDistance(std::string_view(sought).substr(0, kComparedLength),
                                    std::string_view(name).substr(0, kComparedLength));
  const bool holds =
      !name.empty() && !sought.empty() &&
      (name.find(sought) != std::string::npos || sought.find(name) != std::string::npos);
  return holds ? edits : edits + 2 * kComparedLength;
}

// A reference with its pattern compiled once.
class Selector {
 public:
  explicit Selector(const std::string& reference) {
    if (reference.starts_with("re:")) {
      pattern_ = std::regex(reference.substr(3), std::regex::ECMAScript | std::regex::optimize);
    } else if (reference.starts_with("op:")) {
      op_type_ = reference.substr(3);
    } else {
      name_ = reference;
    }
  }

  bool Selects(const Node& node) const {
    if (!op_type_.empty()) return node.op_type == op_type_;
    const std::string& name = NameOf(node);
    return pattern_ ? std::regex_match(name, *pattern_) : !name_.empty() && name == name_;
  }

 private:
  std::optional<std::regex> pattern_;
  std::string op_type_, name_;
};

// What the reference could have meant, in its own kind.
std::vector<std::string> Alternatives(const Model& model, const std::string& reference) {
  const bool is_op = reference.starts_with("op:");
  std::set<std::string> names;
  ForEachNode(model.graph, [&](const Node& node) {
    if (is_op) names.insert("op:" + node.op_type);
    if (!is_op && !NameOf(node).empty()) names.insert(NameOf(node));
  });
  return {names.begin(), names.end()};
}

}  // namespace

const std::string& NameOf(const Node& node) {
  if (!node.name.empty()) return node.name;
  const auto output = std::ranges::find_if(node.outputs, [](const auto& o) { return !o.empty(); });
  return output == node.outputs.end() ? node.name : *output;
}

void KeepName(Node& node, const std::vector<Node>& nodes) {
  if (!node.name.empty()) return;
  const std::string name = NameOf(node);
  const auto has_it = [&](const Node& other) { return other.name == name; };
  if (std::ranges::none_of(nodes, has_it)) node.name = name;
}

void ForEachNode(const Graph& graph, const std::function<void(const Node&)>& visit) {
  for (const Node& node : graph.nodes) {
    visit(node);
    for (const GraphPtr& subgraph : SubgraphsOf(node)) ForEachNode(*subgraph, visit);
  }
}

bool HasNode(const Graph& graph, const std::function<bool(const Node&)>& is_wanted) {
  return std::ranges::any_of(graph.nodes, [&](const Node& node) {
    return is_wanted(node) || std::ranges::any_of(SubgraphsOf(node), [&](const GraphPtr& subgraph) {
             return HasNode(*subgraph, is_wanted);
           });
  });
}

void EditGraphs(Graph& graph, const std::function<void(Graph&)>& visit) {
  visit(graph);
  for (Node& node : graph.nodes) {
    EditSubgraphs(node, [&](Graph& inner) { EditGraphs(inner, visit); });
  }
}

std::unordered_set<const Node*> SelectNodes(const Model& model,
                                            const std::vector<std::string>& references,
                                            const std::string& where) {
  std::unordered_set<const Node*> selected;
  for (const std::string& reference : references) {
    const Selector selector(reference);
    bool found = false;
    ForEachNode(model.graph, [&](const Node& node) {
      if (!selector.Selects(node)) return;
      found = true;
      selected.insert(&node);
    });
    if (!found) {
      throw Error(ErrorCode::kInvalidArgument,
                  "\"" + reference + "\" matches no node of the model; nearest: " +
                      JoinNames(NearestNames(reference, Alternatives(model, reference))),
                  where);
    }
  }
  return selected;
}

std::function<bool(const Node&)> SelectorOf(const std::vector<std::string>& references) {
  const std::vector<Selector> selectors(references.begin(), references.end());
  return [selectors](const Node& node) {
    return std::ranges::any_of(selectors,
                               [&](const Selector& selector) { return selector.Selects(node); });
  };
}

std::vector<std::string> NearestNames(const std::string& name,
                                      const std::vector<std::string>& names) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& other : names) ranked.emplace_back(Distance(name, other), other);
  std::ranges::sort(ranked);
  std::vector<std::string> nearest;
  for (size_t i = 0; i < std::min(kNearestCount, ranked.size()); ++i) {
    nearest.push_back(ranked[i].second);
  }
  return nearest;
}

std::string JoinNames(const std::vector<std::string>& names) {
  if (names.empty()) return "(none)";
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "\"" : ", \"") + name + "\"";
  return text;
}

}  // namespace pared
