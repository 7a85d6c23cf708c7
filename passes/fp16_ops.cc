// Which operators cast_fp16 casts, and since which opset.

#include "passes/fp16_nodes.h"

namespace pared {
namespace {

// Operators whose float types include float16 in every opset pared reads, or since the one given.
const std::unordered_map<std::string, int64_t>& HalfOps() {
  static const std::unordered_map<std::string, int64_t> ops = {{"Abs", 6},
                                                               {"Acos", 7},
                                                               {"Acosh", 9},
                                                               {"Add", 7},
                                                               {"ArgMax", 1},
                                                               {"ArgMin", 1},
                                                               {"Asin", 7},
                                                               {"Asinh", 9},
                                                               {"Atan", 7},
                                                               {"Atanh", 9},
                                                               {"Attention", 23},
                                                               {"AveragePool", 1},
                                                               {"BatchNormalization", 7},
                                                               {"Cast", 6},
                                                               {"Ceil", 6},
                                                               {"Clip", 6},
                                                               {"Compress", 9},
                                                               {"Concat", 4},
                                                               {"Conv", 1},
                                                               {"ConvTranspose", 1},
                                                               {"Cos", 7},
                                                               {"Cosh", 9},
                                                               {"CumSum", 14},
                                                               {"DepthToSpace", 1},
                                                               {"Div", 7},
                                                               {"Dropout", 7},
                                                               {"Einsum", 12},
                                                               {"Elu", 6},
                                                               {"Equal", 11},
                                                               {"Erf", 9},
                                                               {"Exp", 6},
                                                               {"Expand", 8},
                                                               {"Flatten", 1},
                                                               {"Floor", 6},
                                                               {"GRU", 7},
                                                               {"Gather", 1},
                                                               {"GatherElements", 11},
                                                               {"GatherND", 11},
                                                               {"Gelu", 20},
                                                               {"Gemm", 7},
                                                               {"GlobalAveragePool", 1},
                                                               {"GlobalLpPool", 2},
                                                               {"GlobalMaxPool", 1},
                                                               {"Greater", 7},
                                                               {"GreaterOrEqual", 12},
                                                               {"GridSample", 16},
                                                               {"GroupNormalization", 18},
                                                               {"HardSigmoid", 6},
                                                               {"HardSwish", 14},
                                                               {"Hardmax", 1},
                                                               {"Identity", 1},
                                                               {"InstanceNormalization", 6},
                                                               {"IsNaN", 9},
                                                               {"LRN", 1},
                                                               {"LSTM", 7},
                                                               {"LayerNormalization", 17},
                                                               {"LeakyRelu", 6},
                                                               {"Less", 7},
                                                               {"LessOrEqual", 12},
                                                               {"Log", 6},
                                                               {"LogSoftmax", 1},
                                                               {"LpNormalization", 1},
                                                               {"LpPool", 2},
                                                               {"MatMul", 1},
                                                               {"Max", 8},
                                                               {"MaxPool", 1},
                                                               {"Mean", 8},
                                                               {"MeanVarianceNormalization", 9},
                                                               {"Min", 8},
                                                               {"Mish", 18},
                                                               {"Mod", 10},
                                                               {"Mul", 7},
                                                               {"Neg", 6},
                                                               {"NonZero", 9},
                                                               {"PRelu", 7},
                                                               {"Pad", 2},
                                                               {"Pow", 7},
                                                               {"RMSNormalization", 23},
                                                               {"RNN", 7},
                                                               {"Reciprocal", 6},
                                                               {"ReduceL1", 1},
                                                               {"ReduceL2", 1},
                                                               {"ReduceLogSum", 1},
                                                               {"ReduceLogSumExp", 1},
                                                               {"ReduceMax", 1},
                                                               {"ReduceMean", 1},
                                                               {"ReduceMin", 1},
                                                               {"ReduceProd", 1},
                                                               {"ReduceSum", 1},
                                                               {"ReduceSumSquare", 1},
                                                               {"Relu", 6},
                                                               {"Reshape", 5},
                                                               {"Resize", 10},
                                                               {"ReverseSequence", 10},
                                                               {"Round", 11},
                                                               {"Scatter", 9},
                                                               {"ScatterElements", 11},
                                                               {"ScatterND", 11},
                                                               {"Selu", 6},
                                                               {"Shape", 1},
                                                               {"Sigmoid", 6},
                                                               {"Sign", 9},
                                                               {"Sin", 7},
                                                               {"Sinh", 9},
                                                               {"Size", 1},
                                                               {"Slice", 1},
                                                               {"Softmax", 1},
                                                               {"Softplus", 1},
                                                               {"Softsign", 1},
                                                               {"SpaceToDepth", 1},
                                                               {"Split", 2},
                                                               {"Sqrt", 6},
                                                               {"Squeeze", 1},
                                                               {"Sub", 7},
                                                               {"Sum", 8},
                                                               {"Tan", 7},
                                                               {"Tanh", 6},
                                                               {"ThresholdedRelu", 10},
                                                               {"Tile", 6},
                                                               {"TopK", 1},
                                                               {"Transpose", 1},
                                                               {"Trilu", 14},
                                                               {"Unsqueeze", 1},
                                                               {"Upsample", 7},
                                                               {"Where", 9}};
  return ops;
}

// Operators that may take float16 by now, and why they stay float32 all the same.
const std::unordered_map<std::string, std::string>& SingleOps() {
  static const std::unordered_map<std::string, std::string> ops = {
      {"QuantizeLinear", "its scale stays float32"},
      {"DequantizeLinear", "its scale stays float32"},
      {"RoiAlign", "the coordinates of its regions stay float32"},
      {"MaxRoiPool", "the coordinates of its regions stay float32"},
      {"AffineGrid", "the coordinates that it makes stay float32"},
      {"ConstantOfShape", "its value stays float32"}};
  return ops;
}

}  // namespace

std::string WhyNoHalfOp(const Node& node, int64_t opset) {
  if (!node.domain.empty() && node.domain != "ai.onnx") {
    return "operators of domain " + node.domain + " stay float32";
  }
  if (const auto single = SingleOps().find(node.op_type); single != SingleOps().end()) {
    return single->second;
  }
  const auto op = HalfOps().find(node.op_type);
  if (op == HalfOps().end()) return node.op_type + " stays float32";
  const std::string reduction = node.String("reduction", "none");
  const bool sums = reduction == "add" || reduction == "mul";
  if ((node.op_type == "ScatterND" && reduction != "none") ||
      (node.op_type == "ScatterElements" && sums)) {
    return "onnxruntime has no float16 form of " + node.op_type + " with reduction " + reduction;
  }
  if (node.op_type == "Softplus" && opset == 18) {
    return "onnxruntime computes Softplus of opset 18 as Log(1 + Exp(x)), which overflows";
  }
  if (opset >= op->second) return "";
  return node.op_type + " of opset " + std::to_string(opset) + " may not take float16";
}

}  // namespace pared
