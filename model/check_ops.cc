#include "model/check_ops.h"

#include <algorithm>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "model/domain.h"
#include "model/op_schemas.h"

namespace pared {
namespace {

using Constants = std::unordered_map<std::string, const Tensor*>;

[[noreturn]] void Fail(const Node& node, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, NodeLabel(node));
}

// Within a function an attribute may stand for the caller's, and then has no value here.
bool HasValue(const Node& node, const std::string& name) {
  const Attribute* attribute = node.attributes.find(name);
  return attribute != nullptr && !std::holds_alternative<std::monostate>(attribute->value);
}

// Names left out at the end are no inputs.
void CheckInputs(const Node& node, const InputCount& allowed, int64_t opset) {
  const auto given = std::ssize(node.inputs);
  int64_t named = given;
  while (named > 0 && node.inputs[static_cast<size_t>(named) - 1].empty()) --named;
  const std::string in_opset = " in opset " + std::to_string(opset);
  if (given < allowed.min) {
    Fail(node, "the number of inputs is " + std::to_string(given) + "; at least " +
                   std::to_string(allowed.min) + " needed" + in_opset);
  }
  if (named > allowed.max) {
    Fail(node, "the number of inputs is " + std::to_string(named) + "; at most " +
                   std::to_string(allowed.max) + " allowed" + in_opset);
  }
}

void CheckAttributeTypes(const Node& node) {
  for (const auto& [name, attribute] : node.attributes) {
    const char* wanted = AttributeTypeOf(node.op_type, name);
    const char* given = TypeOfValue(attribute);
    if (wanted == nullptr || given == nullptr || std::string_view(wanted) == given) continue;
    Fail(node, "the attribute " + name + " is of type " + given + "; it should be " + wanted);
  }
}

void CheckPerm(const Node& node) {
  if (!HasValue(node, "perm")) return;
  const std::vector<int64_t> perm = node.Ints("perm");
  std::vector<bool> used(perm.size(), false);
  for (const int64_t axis : perm) {
    const int64_t place = axis < 0 ? axis + std::ssize(perm) : axis;
    const bool is_axis = place >= 0 && place < std::ssize(perm);
    if (is_axis && !used[static_cast<size_t>(place)]) {
      used[static_cast<size_t>(place)] = true;
      continue;
    }
    Fail(node, "perm " + ShapeText(perm) + " is no permutation: each axis from 0 to " +
                   std::to_string(std::ssize(perm) - 1) + " should stand in it once");
  }
}

void CheckAutoPad(const Node& node) {
  if (!HasValue(node, "auto_pad")) return;
  const std::string given = node.String("auto_pad", "");
  for (const char* known : {"", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}) {
    if (given == known) return;
  }
  Fail(node, "auto_pad is " + given + "; it should be NOTSET, SAME_UPPER, SAME_LOWER or VALID");
}

void CheckEachAtLeast(const Node& node, const std::string& name, int64_t min) {
  if (!HasValue(node, name)) return;
  for (const int64_t value : node.Ints(name)) {
    if (value < min) {
      Fail(node, name + " has " + std::to_string(value) + "; at least " + std::to_string(min) +
                     " is needed");
    }
  }
}

// Sums and products of two of them stay within 64 bits.
void CheckOfWindow(const Node& node, const std::string& name, int64_t min) {
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  CheckEachAtLeast(node, name, min);
  if (!HasValue(node, name)) return;
  for (const int64_t value : node.Ints(name)) {
    if (value > kMax) {
      Fail(node, name + " has " + std::to_string(value) + "; at most " + std::to_string(kMax) +
                     " makes sense");
    }
  }
}

const Tensor* ConstantInput(const Constants& constants, const Node& node, size_t index) {
  if (index >= node.inputs.size()) return nullptr;
  const auto it = constants.find(node.inputs[index]);
  return it == constants.end() ? nullptr : it->second;
}

// `rank`: of the kernel, where its shape is no attribute; nullopt: not known.
void CheckWindow(const Node& node, std::optional<size_t> rank) {
  CheckOfWindow(node, "strides", 1);
  CheckOfWindow(node, "dilations", 1);
  CheckOfWindow(node, "kernel_shape", 1);
  CheckOfWindow(node, "pads", 0);
  CheckAutoPad(node);
  if (HasValue(node, "kernel_shape")) rank = node.Ints("kernel_shape").size();
  if (!rank.has_value()) return;
  for (const char* name : {"strides", "dilations", "pads"}) {
    if (!HasValue(node, name)) continue;
    const size_t wanted = std::string_view(name) == "pads" ? 2 * *rank : *rank;
    if (node.Ints(name).size() != wanted) {
      Fail(node, std::string(name) + " has " + std::to_string(node.Ints(name).size()) +
                     " entries; the kernel shape needs " + std::to_string(wanted));
    }
  }
}

void CheckConv(const Node& node, const Constants& constants) {
  const size_t weight_input = node.op_type == "QLinearConv" ? 3 : 1;
  const Tensor* weight = ConstantInput(constants, node, weight_input);
  const bool has_kernel = weight != nullptr && weight->rank() > 2;
  CheckWindow(node,
              has_kernel ? std::optional(static_cast<size_t>(weight->rank()) - 2) : std::nullopt);
  const int64_t group = HasValue(node, "group") ? node.Int("group", 1) : 1;
  if (group < 1) Fail(node, "group is " + std::to_string(group) + "; at least 1 is needed");
  if (weight == nullptr) return;
  if (!has_kernel) {
    Fail(node, "the weight has shape " + ShapeText(weight->shape()) +
                   "; channels of outputs and inputs and a kernel are needed");
  }
  if (weight->shape()[0] % group != 0) {
    Fail(node, "group " + std::to_string(group) + " does not divide the " +
                   std::to_string(weight->shape()[0]) + " channels of the weight");
  }
  if (!HasValue(node, "kernel_shape")) return;
  const std::vector<int64_t> kernel = node.Ints("kernel_shape");
  if (!std::equal(kernel.begin(), kernel.end(), weight->shape().begin() + 2,
                  weight->shape().end())) {
    Fail(node, "kernel_shape " + ShapeText(kernel) + " is not that of the weight, " +
                   ShapeText(weight->shape()));
  }
}

// Where the op takes an axis of an initializer, it must exist there.
void CheckConstantAxis(const Node& node, const Constants& constants) {
  const Tensor* data = ConstantInput(constants, node, 0);
  if (data == nullptr || !HasValue(node, "axis")) return;
  const int64_t axis = node.Int("axis", 0);
  const int64_t rank = data->rank();
  // Flatten and DequantizeLinear may name the axis after the last, or of a scalar.
  if (axis < -rank - 1 || axis > rank) {
    Fail(node,
         "axis " + std::to_string(axis) + " is out of range for rank " + std::to_string(rank));
  }
}

void CheckAtLeastOne(const Node& node, const std::string& name) {
  if (!HasValue(node, name)) return;
  const int64_t value = node.Int(name, 1);
  if (value < 1) Fail(node, name + " is " + std::to_string(value) + "; at least 1 is needed");
}

void CheckNode(const Node& node, const Constants& constants, int64_t opset) {
  const std::string& op = node.op_type;
  if (const std::optional<InputCount> allowed = InputCountOf(op, opset)) {
    CheckInputs(node, *allowed, opset);
    CheckAttributeTypes(node);
  }
  if (op == "Conv" || op == "ConvTranspose" || op == "ConvInteger" || op == "QLinearConv") {
    CheckConv(node, constants);
  } else if (op == "MaxPool" || op == "AveragePool" || op == "LpPool") {
    if (node.attributes.find("kernel_shape") == nullptr) Fail(node, "kernel_shape is missing");
    CheckWindow(node, std::nullopt);
  } else if (op == "Transpose") {
    CheckPerm(node);
  } else if (op == "DepthToSpace" || op == "SpaceToDepth") {
    CheckAtLeastOne(node, "blocksize");
  } else if (op == "GroupNormalization" || op == "LRN") {
    CheckAtLeastOne(node, op == "LRN" ? "size" : "num_groups");
  } else if (op == "LSTM" || op == "GRU" || op == "RNN") {
    CheckAtLeastOne(node, "hidden_size");
  } else if (op == "Split") {
    CheckAtLeastOne(node, "num_outputs");
    CheckEachAtLeast(node, "split", 0);
  } else if (op == "Cast" && HasValue(node, "to")) {
    const int64_t to = node.Int("to", 0);
    if (to < 1 || to > static_cast<int64_t>(DType::kInt2)) {
      Fail(node, "casts to an element type " + std::to_string(to) + " that does not exist");
    }
  }
  CheckConstantAxis(node, constants);
}

void CheckNodes(const std::vector<Node>& nodes, Constants constants, int64_t opset);

void CheckGraph(const Graph& graph, Constants constants, int64_t opset) {
  for (const auto& [name, initializer] : graph.initializers) {
    constants[name] = &initializer.tensor;
  }
  CheckNodes(graph.nodes, std::move(constants), opset);
}

void CheckNodes(const std::vector<Node>& nodes, Constants constants, int64_t opset) {
  for (const Node& node : nodes) {
    if (IsDefaultDomain(node.domain)) CheckNode(node, constants, opset);
    for (const auto& [name, attribute] : node.attributes) {
      if (const auto* graph = std::get_if<GraphPtr>(&attribute.value)) {
        CheckGraph(**graph, constants, opset);
      }
      if (const auto* graphs = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
        for (const GraphPtr& each : *graphs) CheckGraph(*each, constants, opset);
      }
      const auto* value = std::get_if<Tensor>(&attribute.value);
      if (value != nullptr && node.op_type == "Constant" && node.outputs.size() == 1) {
        constants[node.outputs[0]] = value;
      }
    }
  }
}

}  // namespace

void CheckOps(const Model& model) {
  CheckGraph(model.graph, {}, model.Opset(""));
  for (const Function& function : model.functions) {
    int64_t opset = 0;
    for (const auto& [domain, version] : function.opsets) {
      if (IsDefaultDomain(domain)) opset = version;
    }
    CheckNodes(function.nodes, {}, opset);
  }
}

}  // namespace pared
