#include "model/tflite_write.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/joined.h"
#include "model/check_ops.h"
#include "model/domain.h"
#include "model/new_file.h"
#include "model/read_at.h"
#include "model/tflite_lowering.h"

namespace pared {
namespace {

using Converters = std::unordered_map<std::string, const TfliteLoweringInfo*>;

const Converters& AllOps() {
  static const Converters kAll = [] {
    Converters all;
    for (const auto ops :
         {LowerConvOps(), LowerPoolOps(), LowerMatMulOps(), LowerElementwiseOps(), LowerReduceOps(),
          LowerLayoutOps(), LowerSelectOps(), LowerImageOps(), LowerRecurrentOps()}) {
      for (const TfliteLoweringInfo& op : ops) all.emplace(op.op_type, &op);
    }
    return all;
  }();
  return kAll;
}

bool IsContributed(const std::string& op_type) {
  return op_type == "Gelu" || op_type == "FastGelu" || op_type == "QuickGelu" ||
         op_type == "DynamicQuantizeMatMul" || op_type == "DynamicQuantizeLSTM";
}

bool IsSpecial(const Node& node) {
  return node.op_type == "QuantizeLinear" || node.op_type == "DequantizeLinear" ||
         node.op_type == "Constant";
}

bool IsKnown(const Node& node) {
  if (!IsDefaultDomain(node.domain)) {
    return node.domain == "com.microsoft" && IsContributed(node.op_type);
  }
  return IsSpecial(node) || AllOps().contains(node.op_type);
}

// Inputs that only say the shape of a result that is known without them.
bool SaysShape(const Node& node, size_t input, const TfliteLowering& lowering) {
  static const std::set<std::string> kByShape = {"Reshape", "Expand", "Resize", "Upsample",
                                                 "ConstantOfShape"};
  const bool is_first = input == 0 && node.op_type != "ConstantOfShape";
  if (is_first || !kByShape.contains(node.op_type)) return false;
  const Shape shape = lowering.ShapeOf(node.outputs[0]);
  return std::ranges::count(shape, -1) <= (node.op_type == "Reshape" ? 1 : 0);
}

// The nodes that the outputs follow from, in order.
std::vector<const Node*> NeededNodes(const Model& model, const TfliteLowering& lowering) {
  std::unordered_set<std::string> needed;
  for (const ValueInfo& output : model.graph.outputs) needed.insert(output.name);
  std::vector<const Node*> nodes;
  for (auto node = model.graph.nodes.rbegin(); node != model.graph.nodes.rend(); ++node) {
    const bool is_needed = std::ranges::any_of(
        node->outputs, [&](const std::string& output) { return needed.contains(output); });
    if (!is_needed) continue;
    nodes.push_back(&*node);
    for (size_t i = 0; i < node->inputs.size(); ++i) {
      const std::string& input = node->inputs[i];
      if (lowering.Constant(input) == nullptr && !SaysShape(*node, i, lowering))
        needed.insert(input);
    }
  }
  std::ranges::reverse(nodes);
  return nodes;
}

// All at once: who must change the model wants to know them together.
void CheckOperators(const std::vector<const Node*>& nodes) {
  std::set<std::string> unknown;
  for (const Node* node : nodes) {
    const bool is_default = IsDefaultDomain(node->domain);
    if (!IsKnown(*node)) unknown.insert((is_default ? "" : node->domain + ".") + node->op_type);
  }
  if (unknown.empty()) return;
  throw Error(ErrorCode::kUnsupported,
              "these operators have no TensorFlow Lite counterpart here: " +
                  Joined({unknown.begin(), unknown.end()}));
}

void Lower(TfliteLowering& lowering, const Node& node) {
  if (node.op_type == "Constant" || lowering.IsDone(node)) return;
  if (node.op_type == "QuantizeLinear") return lowering.Quantize(node);
  if (node.op_type == "DequantizeLinear") return lowering.Dequantize(node);
  const TfliteLoweringInfo& info = *AllOps().at(node.op_type);
  lowering.Begin(node, info.codes, info.fuses);
  info.lower(lowering);
}

}  // namespace

std::string SerializeTflite(const Model& model) {
  CheckOps(model);
  TfliteLowering lowering(model);
  const std::vector<const Node*> nodes = NeededNodes(model, lowering);
  CheckOperators(nodes);
  for (const Node* node : nodes) Lower(lowering, *node);
  return lowering.Finish();
}

void SaveTflite(const Model& model, const std::filesystem::path& path) {
  const std::string bytes = SerializeTflite(model);
  NewFile file(path);
  file.Write(std::as_bytes(std::span(bytes.data(), bytes.size())));
  file.Rename();
}

}  // namespace pared
