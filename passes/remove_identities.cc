// Takes out nodes that hand on their input as it is.
//
// Before:  i = Identity(x)  y = Relu(i)                                  After:  y = Relu(x)
// Before:  x = Relu(a)  y = Dropout(x)  with y an output                 After:  y = Relu(a)
//
// Such are Identity; Dropout that does not train; Cast to the type it reads; Reshape to the shape
// it reads; Transpose that keeps the order; Pad by nothing; Slice of everything; Concat of one; and
// QuantizeLinear of what a DequantizeLinear with the same scale and zero point made of such codes.
// Declines where a Dropout's mask is read, and where the node gives an input, a constant, another
// output or a value of an outer graph the name of an output.

#include <algorithm>
#include <limits>
#include <optional>

#include "model/domain.h"
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

  // The value that the node's first output always equals; empty: there is none.
  std::string EqualTo(const Node& node) const {
    if (!IsDefaultDomain(node.domain) || node.inputs.empty()) return "";
    if (node.inputs[0].empty() || node.outputs[0].empty()) return "";
    const std::string& op = node.op_type;
    if (op == "QuantizeLinear") return CodesOf(node);
    const bool is_no_op = op == "Identity" || (op == "Concat" && node.inputs.size() == 1) ||
                          (op == "Dropout" && !Trains(node)) || (op == "Cast" && KeepsType(node)) ||
                          (op == "Reshape" && KeepsShape(node)) ||
                          (op == "Transpose" && KeepsOrder(node)) ||
                          (op == "Pad" && PadsNothing(node)) || (op == "Slice" && TakesAll(node));
    return is_no_op ? node.inputs[0] : "";
  }

  // Why the node must stay though its output equals `input`; empty: it need not.
  std::string WhyKept(const Node& node, const std::string& input) const {
    for (size_t i = 1; i < node.outputs.size(); ++i) {
      const std::string& mask = node.outputs[i];
      if (mask.empty()) continue;
      if (!index_.consumers(mask).empty() || index_.is_output(mask)) return "its mask is read";
    }
    if (!index_.is_output(node.outputs[0])) return "";
    if (index_.producer(input) == nullptr) {
      return "it gives an input, a constant or an outer value the name of an output";
    }
    if (index_.is_output(input)) return "its input and its output are both outputs of the graph";
    return "";
  }

 private:
  // The codes that the node makes once more, from what they stand for; empty: others, or unknown.
  std::string CodesOf(const Node& quantize) const {
    const Node* dequantize = index_.producer(quantize.inputs[0]);
    if (dequantize == nullptr || dequantize->op_type != "DequantizeLinear" ||
        !IsDefaultDomain(dequantize->domain) || dequantize->inputs[0].empty()) {
      return "";
    }
    const ValueType* codes = TypeOf(dequantize->inputs[0]);
    const ValueType* made = TypeOf(quantize.outputs[0]);
    const bool is_same_type =
        codes != nullptr && made != nullptr && IsCode(codes->dtype) && codes->dtype == made->dtype;
    const bool has_same_axes = quantize.Int("axis", 1) == dequantize->Int("axis", 1) &&
                               quantize.Int("block_size", 0) == dequantize->Int("block_size", 0);
    return is_same_type && has_same_axes && HasSameScale(quantize, *dequantize) &&
                   HasSameZeroPoint(quantize, *dequantize)
               ? dequantize->inputs[0]
               : "";
  }

  static bool IsCode(DType dtype) {
    return dtype == DType::kUInt8 || dtype == DType::kInt8 || dtype == DType::kUInt16 ||
           dtype == DType::kInt16 || dtype == DType::kUInt4 || dtype == DType::kInt4;
  }

  const Tensor* InputConstant(const Node& node, size_t input) const {
    if (input >= node.inputs.size() || node.inputs[input].empty()) return nullptr;
    return ConstantOf(graph_, index_, node.inputs[input], ir_version_);
  }

  // In float32, where code * scale / scale rounds to the code unless it overflows or loses bits.
  bool HasSameScale(const Node& a, const Node& b) const {
    const Tensor* scale = InputConstant(a, 1);
    const Tensor* other = InputConstant(b, 1);
    if (scale == nullptr || other == nullptr || scale->dtype() != DType::kFloat32) return false;
    return IsEqual(*scale, *other) && std::ranges::all_of(scale->data<float>(), [](float value) {
             return value >= std::numeric_limits<float>::min() && value < 1e30f;
           });
  }

  bool HasSameZeroPoint(const Node& a, const Node& b) const {
    const Tensor* zero = InputConstant(a, 2);
    const Tensor* other = InputConstant(b, 2);
    if (zero != nullptr && other != nullptr) return IsEqual(*zero, *other);
    const auto has_none = [](const Node& node) {
      return node.inputs.size() < 3 || node.inputs[2].empty();
    };
    return has_none(a) && has_none(b);
  }

  static bool IsEqual(const Tensor& a, const Tensor& b) {
    return a.dtype() == b.dtype() && a.shape() == b.shape() &&
           std::ranges::equal(a.bytes(), b.bytes());
  }

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

// Joins the node's output and the value that it equals under one name, and takes the node out.
void Remove(Graph& graph, size_t at, const std::string& input) {
  const std::string output = graph.nodes[at].outputs[0];
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
      Remove(graph, begin, finder.EqualTo(*found));
    }
    EraseDead(graph);
  }

 private:
  bool IsToGo(const Finder& finder, const Node& node) {
    std::string reason;
    const std::string equal = finder.EqualTo(node);
    if (equal.empty()) {
      if (node.op_type != "Dropout") return false;
      reason = "it trains";
    } else {
      reason = is_excluded_(node) ? "excluded" : finder.WhyKept(node, equal);
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
    "remove_identities", "Takes out nodes that hand on their input as it is.",
    [](const Json&) { return false; }, 2);

}  // namespace pared
