// What changed between opset 7 and 23, operator by operator:
//
//   attribute became input   Slice 10, TopK 10, Pad 11, Clip 11, Dropout 12, Squeeze, Unsqueeze,
//                            ReduceSum, Split 13, the other reductions 18, DFT 20
//   replaced                 Upsample by Resize (10), Scatter by ScatterElements (11)
//   other meaning            Softmax, LogSoftmax, Hardmax 13: one axis, no flattening to a matrix;
//                            Resize 11: coordinates named, roi added;
//                            RoiAlign 16: shifted by half a pixel unless it is said otherwise
//   attribute dropped        BatchNormalization 9: spatial
//   attribute named anew     GridSample 20: the modes "bilinear" and "bicubic"
//   must be said             Split 18: the number of parts, where their sizes are not given
//   gone                     the experimental operators of opset 1 (10), refused
//   refused                  MeanVarianceNormalization 9 (other attributes), GroupNormalization 21
//   (scales by channel), DFT 20, BatchNormalization 14 that trains

#include "passes/opset_raise.h"

#include <limits>
#include <map>
#include <unordered_set>

#include "base/error.h"
#include "evaluator/half_floats.h"
#include "model/domain.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

constexpr int64_t kOldest = 7;
constexpr int64_t kNewest = 23;
constexpr int64_t kIrOfOpset13 = 7, kIrOfOpset21 = 10, kIrOfOpset23 = 11;
constexpr int32_t kIntType = 2, kStringType = 3;  // AttributeProto.AttributeType

// What the first opsets had on trial and 10 took away; onnxruntime runs them below 10.
const std::unordered_set<std::string> kGoneSince10 = {
    "ATen",    "Affine",       "ConstantFill",      "Crop",
    "GRUUnit", "DynamicSlice", "ImageScaler",       "GivenTensorFill",
    "Scale",   "ScaledTanh",   "ParametricSoftplus"};

[[noreturn]] void Refuse(const Node& node, const std::string& reason) {
  throw Error(ErrorCode::kUnsupported, "cannot be raised to a later opset: " + reason,
              NodeLabel(node));
}

class Raiser {
 public:
  Raiser(Model& model, int64_t to)
      : model_(model), from_(model.Opset("")), to_(to), names_(model), types_(InferShapes(model)) {}

  std::vector<std::string> Run() {
    EditGraphs(model_.graph, [&](Graph& graph) { RaiseGraph(graph); });
    for (auto& [domain, version] : model_.opsets) {
      if (IsDefaultDomain(domain)) version = to_;
    }
    model_.ir_version = std::max(model_.ir_version, to_ > 21   ? kIrOfOpset23
                                                    : to_ > 13 ? kIrOfOpset21
                                                               : kIrOfOpset13);
    std::vector<std::string> notes = {"opset " + std::to_string(from_) + " to " +
                                      std::to_string(to_)};
    for (const auto& [what, count] : counts_) {
      notes.push_back(what + ": " + std::to_string(count));
    }
    return notes;
  }

 private:
  // Whether the operator's change at opset `version` lies on the way.
  bool Passes(int64_t version) const { return from_ < version && version <= to_; }

  void RaiseGraph(Graph& graph) {
    graph_ = &graph;
    const GraphIndex index(graph);
    index_ = &index;
    std::vector<Node> nodes = std::move(graph.nodes);
    graph.nodes.clear();
    for (Node& node : nodes) {
      if (IsDefaultDomain(node.domain)) RaiseNode(node);
      graph.nodes.push_back(std::move(node));
    }
    for (Node& node : trailing_) graph.nodes.push_back(std::move(node));
    trailing_.clear();
    SortNodes(graph);
  }

  void RaiseNode(Node& node) {
    const std::string& op = node.op_type;
    if (op == "Squeeze" || op == "Unsqueeze" || op == "ReduceSum") {
      if (Passes(13)) MoveInts(node, "axes");
    } else if (op == "Split") {
      if (Passes(13)) MoveInts(node, "split");
      if (Passes(18)) NameParts(node);
    } else if (op.starts_with("Reduce")) {
      if (Passes(18)) MoveInts(node, "axes");
    } else if (op == "GridSample") {
      if (Passes(20)) RenameModes(node);
    } else if (op == "GroupNormalization") {
      if (Passes(21)) Refuse(node, "its scales are by channel since opset 21");
    } else if (op == "DFT") {
      if (Passes(20)) Refuse(node, "its axis is an input since opset 20");
    } else if (op == "Slice") {
      if (Passes(10)) RaiseSlice(node);
    } else if (op == "TopK") {
      if (Passes(10)) RaiseTopK(node);
    } else if (op == "Pad") {
      if (Passes(11)) RaisePad(node);
    } else if (op == "Clip") {
      if (Passes(11)) RaiseClip(node);
    } else if (op == "Dropout") {
      if (Passes(12)) RaiseDropout(node);
    } else if (op == "Upsample" || op == "Resize") {
      RaiseResize(node);
    } else if (op == "Softmax" || op == "LogSoftmax" || op == "Hardmax") {
      if (Passes(13)) RaiseSoftmax(node);
    } else if (op == "BatchNormalization") {
      RaiseBatchNorm(node);
    } else if (op == "RoiAlign") {
      if (Passes(16)) RaiseRoiAlign(node);
    } else if (op == "Scatter" && Passes(11)) {
      node.op_type = "ScatterElements";
      ++counts_["Scatter became ScatterElements"];
    } else if (op == "Scan" && from_ < 9) {
      Refuse(node, "Scan of opset 8 scans a batch");
    } else if (op == "MeanVarianceNormalization") {
      if (Passes(9)) Refuse(node, "its attributes are others since opset 9");
    } else if (kGoneSince10.contains(op)) {
      if (Passes(10)) Refuse(node, "there is no " + op + " since opset 10");
    }
  }

  std::string AddInts(const std::string& base, std::vector<int64_t> values) {
    const std::string name = names_.Make(base);
    const Shape shape = {std::ssize(values)};
    graph_->initializers.set(name, {Tensor::Make<int64_t>(shape, std::move(values)), ""});
    return name;
  }

  // A scalar of the type that the node computes in.
  std::string AddScalar(const Node& node, const std::string& suffix, float value) {
    const std::string name = names_.Make(node.outputs[0] + suffix);
    const auto type = types_.find(node.inputs[0]);
    const DType dtype = type == types_.end() ? DType::kUndefined : type->second.dtype;
    Tensor scalar = Tensor::Scalar<float>(value);
    if (dtype == DType::kFloat16) {
      scalar = Tensor::Scalar<Float16>(ToFloat16(value));
    } else if (dtype == DType::kFloat64) {
      scalar = Tensor::Scalar<double>(static_cast<double>(value));
    } else if (dtype != DType::kFloat32 && dtype != DType::kUndefined) {
      Refuse(node, "its values are " + std::string(DTypeName(dtype)));
    }
    graph_->initializers.set(name, {std::move(scalar), ""});
    return name;
  }

  static void Drop(Node& node, const std::unordered_set<std::string>& attributes) {
    node.attributes.erase_if(
        [&](const std::string& name, const Attribute&) { return attributes.contains(name); });
  }

  void MoveInts(Node& node, const std::string& attribute) {
    if (!node.attributes.contains(attribute)) return;
    node.inputs.resize(2);
    node.inputs[1] = AddInts(node.outputs[0] + "_" + attribute, node.Ints(attribute));
    Drop(node, {attribute});
    ++counts_[node.op_type + ": " + attribute + " became an input"];
  }

  void NameParts(Node& node) {
    if (node.inputs.size() > 1 && !node.inputs[1].empty()) return;
    node.attributes.set("num_outputs", {kIntType, std::ssize(node.outputs), "", ""});
    ++counts_["Split: num_outputs said"];
  }

  void RenameModes(Node& node) {
    const std::string mode = node.String("mode", "bilinear");
    const bool is_cubic = mode == "bicubic";
    if (mode != "bilinear" && !is_cubic) return;
    node.attributes.set("mode", {kStringType, std::string(is_cubic ? "cubic" : "linear"), "", ""});
    ++counts_["GridSample: mode named anew"];
  }

  void RaiseSlice(Node& node) {
    node.inputs.resize(3);
    node.inputs[1] = AddInts(node.outputs[0] + "_starts", node.Ints("starts"));
    node.inputs[2] = AddInts(node.outputs[0] + "_ends", node.Ints("ends"));
    if (node.attributes.contains("axes")) {
      node.inputs.push_back(AddInts(node.outputs[0] + "_axes", node.Ints("axes")));
    }
    Drop(node, {"starts", "ends", "axes"});
    ++counts_["Slice: starts, ends, axes became inputs"];
  }

  void RaiseTopK(Node& node) {
    node.inputs.resize(2);
    node.inputs[1] = AddInts(node.outputs[0] + "_k", {node.Int("k", 1)});
    Drop(node, {"k"});
    ++counts_["TopK: k became an input"];
  }

  void RaisePad(Node& node) {
    node.inputs.resize(2);
    node.inputs[1] = AddInts(node.outputs[0] + "_pads", node.Ints("pads"));
    const float value = node.Float("value", 0);
    if (value != 0) node.inputs.push_back(AddScalar(node, "_value", value));
    Drop(node, {"pads", "value"});
    ++counts_["Pad: pads, value became inputs"];
  }

  void RaiseClip(Node& node) {
    const float lowest = std::numeric_limits<float>::lowest();
    const float highest = std::numeric_limits<float>::max();
    const float min = node.Float("min", lowest), max = node.Float("max", highest);
    node.inputs.resize(1);
    if (min != lowest) node.inputs.push_back(AddScalar(node, "_min", min));
    if (max != highest) {
      node.inputs.resize(2);
      node.inputs.push_back(AddScalar(node, "_max", max));
    }
    Drop(node, {"min", "max"});
    ++counts_["Clip: min, max became inputs"];
  }

  // Dropout of these opsets only infers; its ratio has no effect then.
  void RaiseDropout(Node& node) {
    if (node.outputs.size() > 1 && !node.outputs[1].empty()) {
      const bool is_read =
          !index_->consumers(node.outputs[1]).empty() || index_->is_output(node.outputs[1]);
      if (is_read && from_ < 10) Refuse(node, "its mask changed type and is read");
    }
    Drop(node, {"ratio"});
    ++counts_["Dropout: ratio dropped"];
  }

  // Both work as Resize does with the coordinates of the corner and, for "nearest", the floor.
  void RaiseResize(Node& node) {
    if (from_ >= 11 && node.op_type == "Resize") return;
    if (!Passes(11)) return;
    std::string scales = node.inputs.size() > 1 ? node.inputs[1] : "";
    if (scales.empty()) {
      std::vector<float> values = node.Floats("scales");
      const Shape shape = {std::ssize(values)};
      scales = names_.Make(node.outputs[0] + "_scales");
      graph_->initializers.set(scales, {Tensor::Make<float>(shape, std::move(values)), ""});
      Drop(node, {"scales"});
    }
    // Required until 13, though these coordinates do not read it.
    std::string roi;
    if (to_ < 13) {
      roi = names_.Make(node.outputs[0] + "_roi");
      graph_->initializers.set(roi, {Tensor::Make<float>({0}, std::vector<float>()), ""});
    }
    node.inputs = {node.inputs[0], roi, scales};
    if (node.String("mode", "nearest") == "bilinear") Refuse(node, "its mode is of opset 6");
    node.attributes.set("coordinate_transformation_mode",
                        {kStringType, std::string("asymmetric"), "", ""});
    node.attributes.set("nearest_mode", {kStringType, std::string("floor"), "", ""});
    ++counts_[node.op_type + ": became Resize of opset 11"];
    node.op_type = "Resize";
  }

  // Before 13 the input is flattened to a matrix at `axis` (1 by default) and rows are normalized.
  // On the last axis that is what 13 does; elsewhere the flattening is written out.
  void RaiseSoftmax(Node& node) {
    const int64_t axis = node.Int("axis", 1);
    const auto type = types_.find(node.inputs[0]);
    const bool has_rank = type != types_.end() && type->second.shape.has_value();
    const int64_t rank = has_rank ? std::ssize(*type->second.shape) : -1;
    ++counts_[node.op_type + ": normalizes along one axis"];
    if (axis == -1 || axis == rank - 1) {
      node.attributes.set("axis", {kIntType, int64_t{-1}, "", ""});
      return;
    }
    const std::string input = node.inputs[0], output = node.outputs[0];
    const std::string shape = Emit("Shape", {input}, output + "_shape", graph_->nodes);
    const std::string matrix = Emit("Flatten", {input}, output + "_matrix", graph_->nodes);
    graph_->nodes.back().attributes.set("axis", {kIntType, axis, "", ""});
    node.inputs[0] = matrix;
    node.outputs[0] = names_.Make(output + "_rows");
    node.attributes.set("axis", {kIntType, int64_t{-1}, "", ""});
    Emit("Reshape", {node.outputs[0], shape}, output, trailing_);
    trailing_.back().outputs[0] = output;
  }

  std::string Emit(const std::string& op_type, std::vector<std::string> inputs,
                   const std::string& output, std::vector<Node>& into) {
    Node node;
    node.op_type = op_type;
    node.name = names_.Make(output + "_" + op_type);
    node.inputs = std::move(inputs);
    node.outputs = {names_.Make(output)};
    into.push_back(std::move(node));
    return into.back().outputs[0];
  }

  void RaiseBatchNorm(Node& node) {
    if (Passes(9)) {
      if (node.Int("spatial", 1) == 0) Refuse(node, "spatial = 0 is gone since opset 9");
      Drop(node, {"spatial"});
    }
    // Until 14 more than one output meant training.
    if (!Passes(14)) return;
    for (size_t i = 1; i < node.outputs.size(); ++i) {
      if (!node.outputs[i].empty()) Refuse(node, "it trains, and has other outputs since opset 14");
    }
    node.outputs.resize(1);
  }

  void RaiseRoiAlign(Node& node) {
    node.attributes.set("coordinate_transformation_mode",
                        {kStringType, std::string("output_half_pixel"), "", ""});
    ++counts_["RoiAlign: coordinates named"];
  }

  Model& model_;
  int64_t from_, to_;
  FreshNames names_;
  std::unordered_map<std::string, ValueType> types_;
  Graph* graph_ = nullptr;
  const GraphIndex* index_ = nullptr;
  std::vector<Node> trailing_;  // to be put after what they read; SortNodes does
  std::map<std::string, int64_t> counts_;
};

}  // namespace

std::vector<std::string> RaiseOpset(Model& model, int64_t opset) {
  PARED_CHECK(opset <= kNewest);
  const int64_t from = model.Opset("");
  if (from >= opset || from == 0) return {};  // 0: it has no operators of ONNX
  if (from < kOldest) {
    throw Error(ErrorCode::kUnsupported,
                "opset " + std::to_string(from) + " is too old to be raised; 7 is the oldest");
  }
  return Raiser(model, opset).Run();
}

}  // namespace pared
