// Takes out nodes that hand on their input as it is.
//
// Before:  i = Identity(x)  y = Relu(i)                                  After:  y = Relu(x)
// Before:  x = Relu(a)  y = Dropout(x)  with y an output                 After:  y = Relu(a)
//
// Such are Identity; Dropout that does not train; Cast to the type it reads; Reshape to the shape
// it reads; Transpose that keeps the order; Pad by nothing; Slice of everything; Concat of one.
// Declines where a Dropout's mask is read, and where the node gives an input, a constant, another
// output or a value of an outer graph the name of an output.

#include <algorithm>
#include <limits>
#include <optional>

#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

struct Options {
  std::vector<std::string> exclude;
};

void Fields(FieldVisitor& f, Options& o) {
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes to keep; an entry that matches nothing is an error.");
}

// One graph and what is known of it while nodes are looked at.
class Finder {
 public:
  Finder(const Graph& graph, const Model& model,
         const std::unordered_map<std::string, ValueType>& types)
      : graph_(graph),
        index_(graph),
        ir_version_(model.ir_version),
        opset_(model.Opset("")),
        types_(types) {}

  // Whether the node's first output always equals its first input.
  bool IsNoOp(const Node& node) const {
    if (!(node.domain.empty() || node.domain == "ai.onnx") || node.inputs.empty()) return false;
    if (node.inputs[0].empty() || node.outputs[0].empty()) return false;
    const std::string& op = node.op_type;
    return op == "Identity" || (op == "Concat" && node.inputs.size() == 1) ||
           (op == "Dropout" && !Trains(node)) || (op == "Cast" && KeepsType(node)) ||
           (op == "Reshape" && KeepsShape(node)) || (op == "Transpose" && KeepsOrder(node)) ||
           (op == "Pad" && PadsNothing(node)) || (op == "Slice" && TakesAll(node));
  }

  // Why the node must stay though it does nothing; empty: it need not.
  std::string WhyKept(const Node& node) const {
    for (size_t i = 1; i < node.outputs.size(); ++i) {
      const std::string& mask = node.outputs[i];
      if (mask.empty()) continue;
      if (!index_.consumers(mask).empty() || index_.is_output(mask)) return "its mask is read";
    }
    if (!index_.is_output(node.outputs[0])) return "";
    const std::string& input = node.inputs[0];
    if (index_.producer(input) == nullptr) {
      return "it gives an input, a constant or an outer value the name of an output";
    }
    if (index_.is_output(input)) return "its input and its output are both outputs of the graph";
    return "";
  }

 private:
  const ValueType* TypeOf(const std::string& value) const {
    const auto found = types_.find(value);
    return found == types_.end() ? nullptr : &found->second;
  }

  // The constant integers at `input`, or of the attribute that older opsets have.
  std::optional<std::vector<int64_t>> Integers(const Node& node, size_t input,
                                               const std::string& attribute) const {
    if (node.attributes.contains(attribute)) return node.Ints(attribute);
    if (input >= node.inputs.size() || node.inputs[input].empty()) return std::nullopt;
    const Tensor* tensor = ConstantOf(graph_, index_, node.inputs[input], ir_version_);
    if (tensor == nullptr) return std::nullopt;
    if (tensor->dtype() == DType::kInt64) {
      const auto values = tensor->data<int64_t>();
      return std::vector<int64_t>(values.begin(), values.end());
    }
    if (tensor->dtype() != DType::kInt32) return std::nullopt;
    const auto values = tensor->data<int32_t>();
    return std::vector<int64_t>(values.begin(), values.end());
  }

  bool Has(const Node& node, size_t input, const std::string& attribute) const {
    return node.attributes.contains(attribute) ||
           (input < node.inputs.size() && !node.inputs[input].empty());
  }

  bool Trains(const Node& node) const {
    if (opset_ < 7) return node.Int("is_test", 0) == 0;
    if (node.inputs.size() < 3 || node.inputs[2].empty()) return false;
    const Tensor* mode = ConstantOf(graph_, index_, node.inputs[2], ir_version_);
    return mode == nullptr || mode->dtype() != DType::kBool || mode->count() != 1 ||
           mode->data<bool>()[0];
  }

  bool KeepsType(const Node& node) const {
    const ValueType* type = TypeOf(node.inputs[0]);
    return type != nullptr && type->dtype != DType::kUndefined &&
           static_cast<int64_t>(type->dtype) == node.Int("to", 0);
  }

  // Every dimension is copied, or is the number that it was; one may follow from the others.
  bool KeepsShape(const Node& node) const {
    const ValueType* type = TypeOf(node.inputs[0]);
    const std::optional<std::vector<int64_t>> wanted = Integers(node, 1, "shape");
    if (!wanted || type == nullptr || !type->shape || type->shape->size() != wanted->size()) {
      return false;
    }
    int64_t free = 0;
    for (size_t i = 0; i < wanted->size(); ++i) {
      const int64_t dim = (*type->shape)[i].value, want = (*wanted)[i];
      if (want == -1) ++free;
      if (want == 0 && node.Int("allowzero", 0) != 0 && dim != 0) return false;
      if (want > 0 && want != dim) return false;
    }
    return free <= 1;
  }

  bool KeepsOrder(const Node& node) const {
    if (!node.attributes.contains("perm")) {
      const ValueType* type = TypeOf(node.inputs[0]);  // reversed
      return type != nullptr && type->shape && type->shape->size() <= 1;
    }
    const std::vector<int64_t> perm = node.Ints("perm");
    return std::ranges::is_sorted(perm);
  }

  bool PadsNothing(const Node& node) const {
    const auto pads = Integers(node, 1, "pads");
    return pads && std::ranges::all_of(*pads, [](int64_t pad) { return pad == 0; });
  }

  bool TakesAll(const Node& node) const {
    const auto starts = Integers(node, 1, "starts"), ends = Integers(node, 2, "ends");
    const auto axes = Integers(node, 3, "axes"), steps = Integers(node, 4, "steps");
    if (!starts || !ends || starts->size() != ends->size()) return false;
    if (Has(node, 3, "axes") && (!axes || axes->size() != starts->size())) return false;
    if (Has(node, 4, "steps") && !steps) return false;
    if (steps && std::ranges::any_of(*steps, [](int64_t step) { return step != 1; })) return false;
    for (size_t i = 0; i < starts->size(); ++i) {
      const int64_t axis = axes ? (*axes)[i] : static_cast<int64_t>(i);
      if ((*starts)[i] != 0 || !ReachesEnd(node.inputs[0], axis, (*ends)[i])) return false;
    }
    return true;
  }

  // Numbers beyond any dimension are how exporters spell "to the end".
  bool ReachesEnd(const std::string& value, int64_t axis, int64_t end) const {
    if (end >= std::numeric_limits<int32_t>::max()) return true;
    const ValueType* type = TypeOf(value);
    if (type == nullptr || !type->shape) return false;
    const auto rank = std::ssize(*type->shape);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return false;
    const int64_t dim = (*type->shape)[static_cast<size_t>(axis)].value;
    return dim >= 0 && end >= dim;
  }

  const Graph& graph_;
  GraphIndex index_;
  int64_t ir_version_, opset_;
  const std::unordered_map<std::string, ValueType>& types_;
};

// Joins the node's input and output under one name, and takes the node out.
void Remove(Graph& graph, size_t at) {
  const std::string input = graph.nodes[at].inputs[0], output = graph.nodes[at].outputs[0];
  const bool is_output = std::ranges::any_of(
      graph.outputs, [&](const ValueInfo& each) { return each.name == output; });
  graph.nodes.erase(graph.nodes.begin() + static_cast<std::ptrdiff_t>(at));
  if (!is_output) {
    ReplaceUses(graph, output, input);
    return;
  }
  // The name of an output is the one to keep: the input's maker makes it.
  for (Node& node : graph.nodes) {
    std::ranges::replace(node.outputs, input, output);
  }
  ReplaceUses(graph, input, output);
}

class Remover {
 public:
  Remover(const Model& model, const Options& options, PassContext& context)
      : model_(model),
        is_excluded_(SelectorOf(options.exclude)),
        context_(context),
        types_(ShapesIfConsistent(model)) {}

  // Names of a subgraph are not in `types_`, but may be those of another graph.
  void Sweep(Graph& graph, bool is_main) {
    static const std::unordered_map<std::string, ValueType> kNone;
    for (size_t begin = 0; begin < graph.nodes.size();) {
      const Finder finder(graph, model_, is_main ? types_ : kNone);
      const auto found =
          std::find_if(graph.nodes.begin() + static_cast<std::ptrdiff_t>(begin), graph.nodes.end(),
                       [&](const Node& node) { return IsToGo(finder, node); });
      begin = static_cast<size_t>(found - graph.nodes.begin());
      if (found == graph.nodes.end()) break;
      context_.report["changed"].push_back({{"node", NodeLabel(*found)}});
      Remove(graph, begin);
    }
    EraseDead(graph);
  }

 private:
  bool IsToGo(const Finder& finder, const Node& node) {
    std::string reason;
    if (!finder.IsNoOp(node)) {
      if (node.op_type != "Dropout") return false;
      reason = "it trains";
    } else {
      reason = is_excluded_(node) ? "excluded" : finder.WhyKept(node);
    }
    if (reason.empty()) return true;
    context_.report["skipped"].push_back({{"node", NodeLabel(node)}, {"reason", reason}});
    return false;
  }

  const Model& model_;
  const std::function<bool(const Node&)> is_excluded_;
  PassContext& context_;
  // A value keeps its type under its other name: one inference serves all removals.
  const std::unordered_map<std::string, ValueType> types_;
};

Model RemoveIdentities(Model model, const Options& options, PassContext& context) {
  SelectNodes(model, options.exclude, "exclude");
  context.report["changed"] = Json::array();
  context.report["skipped"] = Json::array();
  Remover remover(model, options, context);
  bool is_main = true;
  EditGraphs(model.graph,
             [&](Graph& graph) { remover.Sweep(graph, std::exchange(is_main, false)); });
  return model;
}

}  // namespace

extern const PassInfo kRemoveIdentities = DefinePass<Options, RemoveIdentities>(
    "remove_identities", "Takes out nodes that hand on their input as it is.");

}  // namespace pared
