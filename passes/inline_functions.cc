#include "passes/inline_functions.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "model/rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr int kDepthMax = 64;  // of functions within each other, as the evaluator has it
constexpr int64_t kNodesMax = 1'000'000;

using Renames = std::map<std::string, std::string>;

std::string Normalized(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

std::string KeyOf(const std::string& domain, const std::string& name, const std::string& overload) {
  return Normalized(domain) + "\n" + name + "\n" + overload;
}

std::string Renamed(const Renames& renames, const std::string& name) {
  const auto found = renames.find(name);
  return found == renames.end() ? name : found->second;
}

class Inliner {
 public:
  explicit Inliner(Model& model) : model_(model), names_(model) {
    for (const Function& function : model.functions) {
      functions_[KeyOf(function.domain, function.name, function.overload)] = &function;
    }
  }

  std::vector<std::pair<std::string, std::string>> Run() {
    Inline(model_.graph.nodes, 0);
    std::vector<std::pair<std::string, std::string>> kept;
    for (const auto& [function, reason] : kept_) {
      for (const Node& node : function->nodes) kept.emplace_back(NodeLabel(node), reason);
    }
    // What a kept function calls is needed as well.
    if (kept_.empty()) model_.functions.clear();
    return kept;
  }

 private:
  void Inline(std::vector<Node>& nodes, int depth) {
    if (depth > kDepthMax) {
      throw Error(ErrorCode::kUnsupported,
                  "functions are nested more than " + std::to_string(kDepthMax) + " deep");
    }
    std::vector<Node> out;
    for (Node& node : nodes) {
      Node copy = std::move(node);
      EditSubgraphs(copy, [&](Graph& graph) { Inline(graph.nodes, depth); });
      const Function* function = Callee(copy);
      if (function == nullptr) {
        if (++node_count_ > kNodesMax) {
          throw Error(ErrorCode::kUnsupported,
                      "with its functions written out the model has more than " +
                          std::to_string(kNodesMax) + " nodes");
        }
        out.push_back(std::move(copy));
        continue;
      }
      std::vector<Node> body = BodyOf(copy, *function);
      Inline(body, depth + 1);
      std::ranges::move(body, std::back_inserter(out));
    }
    nodes = std::move(out);
  }

  // Null: no call, or of a function that cannot be written out.
  const Function* Callee(const Node& node) {
    const auto found = functions_.find(KeyOf(node.domain, node.op_type, node.overload));
    if (found == functions_.end()) return nullptr;
    const Function& function = *found->second;
    for (const auto& [domain, version] : function.opsets) {
      ImportDomain(model_, domain, version);
      const int64_t imported = model_.Opset(domain);
      if (imported == version) continue;
      kept_.emplace(&function, "in function " + function.name + ", which imports opset " +
                                   std::to_string(version) + " where the model has " +
                                   std::to_string(imported));
      return nullptr;
    }
    return &function;
  }

  std::vector<Node> BodyOf(const Node& call, const Function& function) {
    Attributes bound = function.default_attributes;
    for (const auto& [name, attribute] : call.attributes) bound.set(name, attribute);
    Renames renames;
    for (size_t i = 0; i < function.inputs.size(); ++i) {
      renames[function.inputs[i]] = i < call.inputs.size() ? call.inputs[i] : "";
    }
    std::vector<Node> body;
    std::vector<Node> handed_on;  // outputs that the function only passes through
    for (size_t i = 0; i < function.outputs.size() && i < call.outputs.size(); ++i) {
      const std::string &inner = function.outputs[i], &outer = call.outputs[i];
      if (outer.empty()) continue;
      if (renames.emplace(inner, outer).second) continue;
      Node identity;
      identity.name = names_.Make(outer + "_identity");
      identity.op_type = "Identity";
      identity.inputs = {Renamed(renames, inner)};
      identity.outputs = {outer};
      handed_on.push_back(std::move(identity));
    }
    for (const Node& node : function.nodes) body.push_back(Copied(node, bound, renames, call));
    std::ranges::move(handed_on, std::back_inserter(body));
    return body;
  }

  Node Copied(Node node, const Attributes& bound, Renames& renames, const Node& call) {
    for (std::string& input : node.inputs) input = Renamed(renames, input);
    for (std::string& output : node.outputs) output = Defined(output, renames);
    if (!node.name.empty()) {
      node.name = names_.Make(call.name.empty() ? node.name : call.name + "/" + node.name);
    }
    Bind(node, bound);
    EditSubgraphs(node, [&](Graph& graph) { RenameGraph(graph, bound, renames, call); });
    return node;
  }

  // The name that a value assigned here has from now on.
  std::string Defined(const std::string& name, Renames& renames) {
    if (name.empty()) return name;
    const auto [known, is_new] = renames.emplace(name, "");
    if (is_new) known->second = names_.Make(name);
    return known->second;
  }

  // Attributes that stand for the function's own become what the call gave, or go.
  static void Bind(Node& node, const Attributes& bound) {
    Attributes after;
    for (const auto& [name, attribute] : node.attributes) {
      const Attribute* given =
          attribute.ref_name.empty() ? &attribute : bound.find(attribute.ref_name);
      if (given != nullptr) after.set(name, *given);
    }
    node.attributes = std::move(after);
  }

  void RenameGraph(Graph& graph, const Attributes& bound, Renames renames, const Node& call) {
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
    for (Node& node : graph.nodes) node = Copied(std::move(node), bound, renames, call);
    for (ValueInfo& output : graph.outputs) output.name = Renamed(renames, output.name);
    graph.values = {};  // hints, under names that are gone
  }

  // An initializer may be one of the graph's inputs, which have their new names by now.
  std::string Listed(const Graph& graph, const std::string& name, Renames& renames) {
    const std::string known = Renamed(renames, name);
    for (const ValueInfo& input : graph.inputs) {
      if (input.name == known) return known;
    }
    return Fresh(name, renames);
  }

  // Of a name that this graph assigns, whatever it means outside.
  std::string Fresh(const std::string& name, Renames& renames) {
    if (name.empty()) return name;
    return renames[name] = names_.Make(name);
  }

  Model& model_;
  FreshNames names_;
  std::map<std::string, const Function*> functions_;
  std::map<const Function*, std::string> kept_;
  int64_t node_count_ = 0;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> InlineFunctions(Model& model) {
  if (model.functions.empty()) return {};
  return Inliner(model).Run();
}

}  // namespace pared
