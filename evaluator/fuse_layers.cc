// Additions, products, pools, joins and moves of quantized values, done on their codes.
//
// Before:  f = Add(DQ(a), DQ(b))  y = Q(Relu(f))               After:  y = Add(a, b)
// Before:  f = Reshape(DQ(x), s)  y = Q(f)                     After:  y = Reshape(x, s)
//
// Where a move's or a maximum's parameters differ from its input's, a table converts the codes
// after.

#include <algorithm>
#include <utility>

#include "evaluator/fuse_graph.h"
#include "kernels/elementwise.h"

namespace pared {
namespace {

QuantParams ParametersOf(const Quantized& value) { return {value.scale, value.zero_point}; }

// Operators that copy elements, whichever type these have.
bool MovesElements(const Node& node) {
  static const std::unordered_set<std::string> kMoves = {
      "DepthToSpace", "Expand",       "Flatten", "Gather", "Identity",  "Reshape",
      "Slice",        "SpaceToDepth", "Squeeze", "Tile",   "Transpose", "Unsqueeze"};
  if (!node.domain.empty()) return false;
  if (kMoves.contains(node.op_type)) return true;
  return node.op_type == "Resize" && node.String("mode", "nearest") == "nearest" &&
         node.String("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize";
}

// The part of a Split that is its output `value`. Sizes are known to the node at run time.
Node PartOfSplit(const FuseGraph& graph, const Node& split, const std::string& value) {
  Node part = MakeInt8Node("SplitPart", split.name, {});
  const auto output = std::find(split.outputs.begin(), split.outputs.end(), value);
  SetInt(part, "index", output - split.outputs.begin());
  SetInt(part, "count", static_cast<int64_t>(split.outputs.size()));
  SetInt(part, "axis", split.Int("axis", 0));
  std::vector<int64_t> sizes = split.Ints("split");
  if (split.inputs.size() > 1 && !split.inputs[1].empty()) {
    const Tensor* given = graph.constant(split.inputs[1]);
    const std::span<const int64_t> values = given->data<int64_t>();
    sizes.assign(values.begin(), values.end());
  }
  SetInts(part, "split", std::move(sizes));
  return part;
}

// The constant scales of a Resize of images that leaves images and channels alone. Null: it is not
// so.
const Tensor* ImageScales(const FuseGraph& graph, const Node& node) {
  const bool by_scales = node.op_type == "Resize" && node.inputs.size() == 3 &&
                         graph.model().Opset("") >= 11 && node.Ints("axes").empty();
  const Tensor* scales = by_scales ? graph.constant(node.inputs[2]) : nullptr;
  if (scales == nullptr || scales->dtype() != DType::kFloat32 || scales->count() < 3)
    return nullptr;
  const std::span<const float> values = scales->data<float>();
  return values[0] == 1.0f && values[1] == 1.0f ? scales : nullptr;
}

bool HasPaddingMode(const Node& node) { return node.Int("ceil_mode", 0) != 0; }

}  // namespace

std::optional<Tensor> RequantizeCodes(const Quantized& from, const Quantized& to) {
  if (from.scale == to.scale && from.zero_point == to.zero_point) return {};
  const ByteTable table = RequantizeTable(ParametersOf(from), ParametersOf(to));
  return Tensor::Make<uint8_t>({256}, std::vector<uint8_t>(table.begin(), table.end()));
}

void MakeConverted(FuseGraph& graph, Node node, const Quantized& made, const Quantized& output) {
  std::optional<Tensor> table = RequantizeCodes(made, output);
  if (!table) {
    graph.MakeTwin(output, std::move(node));
    return;
  }
  const std::string name = node.name;
  Node convert = MakeInt8Node("LookUp", name, {graph.Add(std::move(node))});
  SetTensor(convert, "table", std::move(*table));
  graph.MakeTwin(output, std::move(convert));
}

bool FuseBinary(FuseGraph& graph, const Match& match) {
  const Node& node = *match.node;
  const std::optional<Quantized> a = graph.DequantizedFrom(node.inputs[0]);
  const std::optional<Quantized> b = graph.DequantizedFrom(node.inputs[1]);
  if (!a || !b) return false;
  Node fused = MakeInt8Node(node.op_type, node.name, {graph.Twin(*a), graph.Twin(*b)});
  SetParameters(fused, "a", *a);
  SetParameters(fused, "b", *b);
  SetParameters(fused, "y", match.output);
  SetRange(fused, match.range);
  graph.MakeTwin(match.output, std::move(fused));
  graph.MarkFused(node);
  return true;
}

bool FusePooling(FuseGraph& graph, const Match& match) {
  const Node& node = *match.node;
  const std::optional<Quantized> x = graph.DequantizedFrom(node.inputs[0]);
  if (!x || match.range.low != 0 || match.range.high != 255) return false;
  const bool global = node.op_type == "GlobalAveragePool";
  const size_t axes = node.Ints("kernel_shape").size();
  if (!global && axes != 1 && axes != 2) return false;
  if (node.op_type == "AveragePool" && HasPaddingMode(node)) return false;
  if (node.op_type == "MaxPool" && node.outputs.size() > 1) return false;
  Node fused = MakeInt8Node(node.op_type, node.name, {graph.Twin(*x)});
  fused.attributes = node.attributes;
  if (node.op_type == "MaxPool") {
    MakeConverted(graph, std::move(fused), *x, match.output);
    return true;
  }
  SetParameters(fused, "x", *x);
  SetParameters(fused, "y", match.output);
  graph.MakeTwin(match.output, std::move(fused));
  return true;
}

bool FuseConcat(FuseGraph& graph, const Match& match) {
  const Node& node = *match.node;
  if (match.range.low != 0 || match.range.high != 255) return false;
  std::vector<Quantized> inputs;
  for (const std::string& input : node.inputs) {
    const std::optional<Quantized> x = graph.DequantizedFrom(input);
    if (!x) return false;
    inputs.push_back(*x);
  }
  Node fused = MakeInt8Node("Concat", node.name, {});
  SetInt(fused, "axis", node.Int("axis", 0));
  for (size_t i = 0; i < inputs.size(); ++i) {
    fused.inputs.push_back(graph.Twin(inputs[i]));
    std::optional<Tensor> table = RequantizeCodes(inputs[i], match.output);
    if (table) SetTensor(fused, "table_" + std::to_string(i), std::move(*table));
  }
  graph.MakeTwin(match.output, std::move(fused));
  return true;
}

bool FuseMovement(FuseGraph& graph, const Match& match) {
  const Node& node = *match.node;
  if (match.range.low != 0 || match.range.high != 255 || node.inputs.empty()) return false;
  const std::optional<Quantized> x = graph.DequantizedFrom(node.inputs[0]);
  if (!x) return false;
  if (node.op_type == "Split" && node.domain.empty()) {
    const bool has_sizes = node.inputs.size() > 1 && !node.inputs[1].empty();
    if (has_sizes && graph.constant(node.inputs[1]) == nullptr) return false;
    Node part = PartOfSplit(graph, node, match.value);
    part.inputs = {graph.Twin(*x)};
    MakeConverted(graph, std::move(part), *x, match.output);
    return true;
  }
  if (!MovesElements(node)) return false;
  if (const Tensor* scales = ImageScales(graph, node)) {
    Node resized = MakeInt8Node("Resize", node.name, {graph.Twin(*x)});
    resized.attributes = node.attributes;
    SetTensor(resized, "scales", *scales);
    SetInt(resized, "opset", graph.model().Opset(""));
    MakeConverted(graph, std::move(resized), *x, match.output);
    return true;
  }
  Node moved = node;
  moved.inputs[0] = graph.Add(MakeInt8Node("ToRowMajor", node.name, {graph.Twin(*x)}));
  MakeConverted(graph, std::move(moved), *x, match.output);
  return true;
}

}  // namespace pared
