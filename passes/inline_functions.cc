#include "passes/inline_functions.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "model/function_call.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

std::string Normalized(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

std::string KeyOf(const std::string& domain, const std::string& name, const std::string& overload) {
  return Normalized(domain) + "\n" + name + "\n" + overload;
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
    if (depth > kNestingMax) {
      throw Error(ErrorCode::kUnsupported,
                  "functions are nested more than " + std::to_string(kNestingMax) + " deep");
    }
    std::vector<Node> out;
    for (Node& node : nodes) {
      Node copy = std::move(node);
      EditSubgraphs(copy, [&](Graph& graph) { Inline(graph.nodes, depth); });
      CountWrittenOut(node_count_);
      const Function* function = Callee(copy);
      if (function == nullptr) {
        out.push_back(std::move(copy));
        continue;
      }
      std::vector<Node> body = InlineCall(copy, *function, names_);
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

  Model& model_;
  FreshNames names_;
  std::map<std::string, const Function*> functions_;
  std::map<const Function*, std::string> kept_;
  int64_t node_count_ = 0;
};

}  // namespace

std::vector<std::pair<std::string, std::string>> InlineFunctions(Model& model) {
  if (model.functions.empty()) return {};
  CheckWrittenOut(model);  // before anything is
  return Inliner(model).Run();
}

}  // namespace pared
