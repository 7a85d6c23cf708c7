#include "model/function_call.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace pared {
namespace {

using Renames = std::map<std::string, std::string>;

std::string Renamed(const Renames& renames, const std::string& name) {
  const auto found = renames.find(name);
  return found == renames.end() ? name : found->second;
}

class Copier {
 public:
  Copier(const Node& call, const Function& function, FreshNames& names)
      : call_(call), bound_(BoundAttributes(function, call)), names_(names) {}

  Node Copied(Node node, Renames& renames) {
    for (std::string& input : node.inputs) input = Renamed(renames, input);
    for (std::string& output : node.outputs) output = Defined(output, renames);
    if (!node.name.empty()) {
      node.name = names_.Make(call_.name.empty() ? node.name : call_.name + "/" + node.name);
    }
    node = Bind(node, bound_);
    EditSubgraphs(node, [&](Graph& graph) { RenameGraph(graph, renames); });
    return node;
  }

 private:
  // The name that a value assigned here has from now on.
  std::string Defined(const std::string& name, Renames& renames) {
    if (name.empty()) return name;
    const auto [known, is_new] = renames.emplace(name, "");
    if (is_new) known->second = names_.Make(name);
    return known->second;
  }

  void RenameGraph(Graph& graph, Renames renames) {
    for (ValueInfo& input : graph.inputs) input.name = Fresh(input.name, renames);
    NamedList<Initializer> initializers;
    for (const auto& [name, initializer] : graph.initializers) {
      initializers.set(Listed(graph, name, renames), initializer);
    }
    graph.initializers = std::move(initializers);
    NamedList<SparseTensor> sparse;
    for (const auto& [name, tensor] : graph.sparse_initializers) {
      sparse.set(Listed(graph, name, renames), tensor);
    }
    graph.sparse_initializers = std::move(sparse);
    for (Node& node : graph.nodes) {
      for (const std::string& output : node.outputs) Fresh(output, renames);
    }
    for (Node& node : graph.nodes) node = Copied(std::move(node), renames);
    for (ValueInfo& output : graph.outputs) output.name = Renamed(renames, output.name);
    graph.values = {};  // hints, under names that are gone
  }

  // An initializer may be one of the graph's inputs, which have their new names by now.
  std::string Listed(const Graph& graph, const std::string& name, Renames& renames) {
    const std::string known = Renamed(renames, name);
    return IsAmong(graph.inputs, known) ? known : Fresh(name, renames);
  }

  // Of a name that this graph assigns, whatever it means outside.
  std::string Fresh(const std::string& name, Renames& renames) {
    if (name.empty()) return name;
    return renames[name] = names_.Make(name);
  }

  const Node& call_;
  Attributes bound_;
  FreshNames& names_;
};

constexpr int64_t kNodesMax = 1'000'000;

[[noreturn]] void FailNodes() {
  throw Error(ErrorCode::kUnsupported, "with its functions written out the model has more than " +
                                           std::to_string(kNodesMax) +
                                           " nodes, calls of functions included");
}

// Counts what each function stands for once, however often it is called.
class WrittenOut {
 public:
  explicit WrittenOut(const Model& model) {
    for (const Function& function : model.functions) {
      functions_[{Domain(function.domain), function.name, function.overload}] = &function;
    }
  }

  int64_t CountOf(const std::vector<Node>& nodes, int depth) {
    if (depth > kNestingMax) {
      throw Error(ErrorCode::kUnsupported,
                  "functions are nested more than " + std::to_string(kNestingMax) + " deep");
    }
    int64_t count = 0;
    const auto add = [&](int64_t more) {
      count += more;
      if (count > kNodesMax) FailNodes();
    };
    for (const Node& node : nodes) {
      add(1);
      for (const auto& [name, attribute] : node.attributes) {
        if (const auto* graph = std::get_if<GraphPtr>(&attribute.value)) {
          add(CountOf((*graph)->nodes, depth));
        }
      }
      const auto callee = functions_.find({Domain(node.domain), node.op_type, node.overload});
      if (callee != functions_.end()) add(CountOf(*callee->second, depth + 1));
    }
    return count;
  }

 private:
  using Key = std::tuple<std::string, std::string, std::string>;  // domain, name, overload

  static std::string Domain(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

  int64_t CountOf(const Function& function, int depth) {
    const auto known = counts_.find(&function);
    if (known != counts_.end()) return known->second;
    return counts_[&function] = CountOf(function.nodes, depth);
  }

  std::map<Key, const Function*> functions_;
  std::map<const Function*, int64_t> counts_;
};

}  // namespace

void CountWrittenOut(int64_t& count) {
  if (++count > kNodesMax) FailNodes();
}

void CheckWrittenOut(const Model& model) {
  if (!model.functions.empty()) WrittenOut(model).CountOf(model.graph.nodes, 0);
}

Attributes BoundAttributes(const Function& function, const Node& call) {
  Attributes bound = function.default_attributes;
  for (const auto& [name, attribute] : call.attributes) bound.set(name, attribute);
  return bound;
}

Node Bind(const Node& node, const Attributes& bound) {
  Node copy = node;
  copy.attributes = {};
  for (const auto& [name, attribute] : node.attributes) {
    const Attribute* given =
        attribute.ref_name.empty() ? &attribute : bound.find(attribute.ref_name);
    if (given != nullptr) copy.attributes.set(name, *given);
  }
  return copy;
}

std::vector<Node> InlineCall(const Node& call, const Function& function, FreshNames& names) {
  Renames renames;
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    renames[function.inputs[i]] = i < call.inputs.size() ? call.inputs[i] : "";
  }
  std::vector<Node> handed_on;  // outputs that the function only passes through
  for (size_t i = 0; i < function.outputs.size() && i < call.outputs.size(); ++i) {
    const std::string &inner = function.outputs[i], &outer = call.outputs[i];
    if (outer.empty()) continue;
    if (renames.emplace(inner, outer).second) continue;
    Node identity;
    identity.name = names.Make(outer + "_identity");
    identity.op_type = "Identity";
    identity.inputs = {Renamed(renames, inner)};
    identity.outputs = {outer};
    handed_on.push_back(std::move(identity));
  }
  std::vector<Node> body;
  Copier copier(call, function, names);
  for (const Node& node : function.nodes) body.push_back(copier.Copied(node, renames));
  std::ranges::move(handed_on, std::back_inserter(body));
  return body;
}

}  // namespace pared
