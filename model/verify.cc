// Verify: what must hold of every model, also after each pass.

#include <unordered_set>

#include "base/error.h"
#include "model/graph.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

[[noreturn]] void Fail(const std::string& message, const std::string& where) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

struct Scope {
  const Scope* outer = nullptr;
  Names assigned;

  bool Sees(const std::string& name) const {
    return assigned.contains(name) || (outer != nullptr && outer->Sees(name));
  }
};

// The opsets that are in force: the model's, or those of the function whose body this is.
class Verifier {
 public:
  explicit Verifier(std::unordered_set<std::string> domains) : domains_(std::move(domains)) {}

  void CheckGraph(const Graph& graph, const Scope* outer) const {
    Scope scope{outer, {}};
    for (const ValueInfo& input : graph.inputs) Assign(scope, input.name, "graph input");
    Names initialized;
    for (const auto& [name, initializer] : graph.initializers) {
      if (!initializer.tensor.defined()) Fail("the initializer has no tensor", name);
      initialized.insert(name);
    }
    for (const auto& [name, tensor] : graph.sparse_initializers) {
      if (!initialized.insert(name).second) Fail("the initializer is assigned twice", name);
      CheckSparse(name, tensor);
    }
    if (initialized.contains("")) Fail("an initializer has no name", graph.name);
    // An initializer may repeat a graph input: it is that input's default.
    scope.assigned.insert(initialized.begin(), initialized.end());
    CheckNodes(graph.nodes, scope);
    for (const ValueInfo& output : graph.outputs) {
      if (!scope.Sees(output.name)) Fail("nothing assigns this graph output", output.name);
    }
  }

  void CheckFunction(const Function& function) const {
    Scope scope;
    for (const std::string& input : function.inputs) Assign(scope, input, "function input");
    CheckNodes(function.nodes, scope);
    for (const std::string& output : function.outputs) {
      if (!scope.Sees(output)) {
        Fail("nothing assigns the output " + output, "function " + function.name);
      }
    }
  }

 private:
  static void Assign(Scope& scope, const std::string& name, const std::string& what) {
    if (name.empty()) Fail(what + " without a name", what);
    if (!scope.assigned.insert(name).second) Fail("assigned twice, again by " + what, name);
  }

  static void CheckSparse(const std::string& name, const SparseTensor& sparse) {
    const Shape& values = sparse.values.shape();
    const Shape& indices = sparse.indices.shape();
    const int64_t rank = static_cast<int64_t>(sparse.dims.size());
    const bool is_linear = indices.size() == 1;
    const bool is_by_axis = indices.size() == 2 && indices[1] == rank;
    if (values.size() != 1) Fail("the values of a sparse initializer should have rank 1", name);
    if (sparse.indices.dtype() != DType::kInt64) {
      Fail("the indices of a sparse initializer should be int64", name);
    }
    if (!is_linear && !is_by_axis) {
      Fail("the indices of a sparse initializer have shape " + ShapeText(indices), name);
    }
    if (indices[0] != values[0]) {
      Fail("a sparse initializer has " + std::to_string(values[0]) + " values and " +
               std::to_string(indices[0]) + " indices",
           name);
    }
    const int64_t count = ElementCount(sparse.dims);
    const std::span<const int64_t> data = sparse.indices.data<int64_t>();
    for (size_t i = 0; i < data.size(); ++i) {
      const int64_t limit = is_linear ? count : sparse.dims[i % static_cast<size_t>(rank)];
      if (data[i] < 0 || data[i] >= limit)
        Fail("an index of a sparse initializer is outside", name);
    }
  }

  void CheckNodes(const std::vector<Node>& nodes, Scope& scope) const {
    for (const Node& node : nodes) {
      if (node.op_type.empty()) Fail("a node has no op_type", NodeLabel(node));
      if (!domains_.contains(node.domain == "ai.onnx" ? "" : node.domain)) {
        Fail("the model imports no opset of the domain '" + node.domain + "'", NodeLabel(node));
      }
      for (const std::string& input : node.inputs) {
        if (!input.empty() && !scope.Sees(input)) {
          Fail("reads " + input + ", which nothing before it assigns", NodeLabel(node));
        }
      }
      CheckSubgraphs(node, scope);
      for (const std::string& output : node.outputs) {
        if (!output.empty()) Assign(scope, output, NodeLabel(node));
      }
    }
  }

  void CheckSubgraphs(const Node& node, const Scope& scope) const {
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* graph = std::get_if<GraphPtr>(&attribute.value)) {
        CheckGraph(**graph, &scope);
      }
      if (const auto* graphs = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
        for (const GraphPtr& graph : *graphs) CheckGraph(*graph, &scope);
      }
    }
  }

  std::unordered_set<std::string> domains_;
};

template <class Opsets>
std::unordered_set<std::string> DomainsOf(const Opsets& opsets) {
  std::unordered_set<std::string> domains;
  for (const auto& [domain, version] : opsets) domains.insert(domain == "ai.onnx" ? "" : domain);
  return domains;
}

}  // namespace

void Verify(const Model& model) {
  Verifier(DomainsOf(model.opsets)).CheckGraph(model.graph, nullptr);
  for (const Function& function : model.functions) {
    Verifier(DomainsOf(function.opsets)).CheckFunction(function);
  }
}

}  // namespace pared
