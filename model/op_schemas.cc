// From the schemas of ONNX 1.23, opsets 7 to 24: what changed earlier or later is not here.

#include "model/op_schemas.h"

#include <algorithm>
#include <iterator>
#include <string_view>

namespace pared {
namespace {

constexpr int64_t kMany = INT64_MAX;

struct Schema {
  std::string_view op_type;
  int64_t since;  // this opset, until the next row of the operator
  int64_t inputs_min, inputs_max;
};

// clang-format off
constexpr Schema kSchemas[] = {
    {"Abs", 1, 1, 1}, {"Acos", 7, 1, 1}, {"Acosh", 9, 1, 1}, {"Add", 1, 2, 2},
    {"AffineGrid", 20, 2, 2}, {"And", 1, 2, 2}, {"ArgMax", 1, 1, 1}, {"ArgMin", 1, 1, 1},
    {"Asin", 7, 1, 1}, {"Asinh", 9, 1, 1}, {"Atan", 7, 1, 1}, {"Atanh", 9, 1, 1},
    {"Attention", 23, 3, 6}, {"Attention", 24, 3, 7}, {"AveragePool", 1, 1, 1},
    {"BatchNormalization", 1, 5, 5}, {"Bernoulli", 15, 1, 1}, {"BitShift", 11, 2, 2},
    {"BitwiseAnd", 18, 2, 2}, {"BitwiseNot", 18, 1, 1}, {"BitwiseOr", 18, 2, 2},
    {"BitwiseXor", 18, 2, 2}, {"BlackmanWindow", 17, 1, 1}, {"Cast", 1, 1, 1},
    {"CastLike", 15, 2, 2}, {"Ceil", 1, 1, 1}, {"Celu", 12, 1, 1}, {"CenterCropPad", 18, 2, 2},
    {"Clip", 1, 1, 1}, {"Clip", 11, 1, 3}, {"Col2Im", 18, 3, 3}, {"Compress", 9, 2, 2},
    {"Concat", 1, 1, kMany}, {"ConcatFromSequence", 11, 1, 1}, {"Constant", 1, 0, 0},
    {"ConstantOfShape", 9, 1, 1}, {"Conv", 1, 2, 3}, {"ConvInteger", 10, 2, 4},
    {"ConvTranspose", 1, 2, 3}, {"Cos", 7, 1, 1}, {"Cosh", 9, 1, 1}, {"CumSum", 11, 2, 2},
    {"DFT", 17, 1, 2}, {"DFT", 20, 1, 3}, {"DeformConv", 19, 3, 5}, {"DepthToSpace", 1, 1, 1},
    {"DequantizeLinear", 10, 2, 3}, {"Det", 11, 1, 1}, {"Div", 1, 2, 2}, {"Dropout", 1, 1, 1},
    {"Dropout", 12, 1, 3}, {"DynamicQuantizeLinear", 11, 1, 1}, {"Einsum", 12, 1, kMany},
    {"Elu", 1, 1, 1}, {"Equal", 1, 2, 2}, {"Erf", 9, 1, 1}, {"Exp", 1, 1, 1}, {"Expand", 8, 2, 2},
    {"EyeLike", 9, 1, 1}, {"Flatten", 1, 1, 1}, {"Floor", 1, 1, 1}, {"GRU", 1, 3, 6},
    {"Gather", 1, 2, 2}, {"GatherElements", 11, 2, 2}, {"GatherND", 11, 2, 2}, {"Gelu", 20, 1, 1},
    {"Gemm", 1, 3, 3}, {"Gemm", 11, 2, 3}, {"GlobalAveragePool", 1, 1, 1},
    {"GlobalLpPool", 1, 1, 1}, {"GlobalMaxPool", 1, 1, 1}, {"Greater", 1, 2, 2},
    {"GreaterOrEqual", 12, 2, 2}, {"GridSample", 16, 2, 2}, {"GroupNormalization", 18, 3, 3},
    {"HammingWindow", 17, 1, 1}, {"HannWindow", 17, 1, 1}, {"HardSigmoid", 1, 1, 1},
    {"HardSwish", 14, 1, 1}, {"Hardmax", 1, 1, 1}, {"Identity", 1, 1, 1}, {"If", 1, 1, 1},
    {"ImageDecoder", 20, 1, 1}, {"InstanceNormalization", 1, 3, 3}, {"IsInf", 10, 1, 1},
    {"IsNaN", 9, 1, 1}, {"LRN", 1, 1, 1}, {"LSTM", 1, 3, 8}, {"LayerNormalization", 17, 2, 3},
    {"LeakyRelu", 1, 1, 1}, {"Less", 1, 2, 2}, {"LessOrEqual", 12, 2, 2}, {"Log", 1, 1, 1},
    {"LogSoftmax", 1, 1, 1}, {"Loop", 1, 3, kMany}, {"Loop", 11, 2, kMany},
    {"LpNormalization", 1, 1, 1}, {"LpPool", 1, 1, 1}, {"MatMul", 1, 2, 2},
    {"MatMulInteger", 10, 2, 4}, {"Max", 1, 1, kMany}, {"MaxPool", 1, 1, 1},
    {"MaxRoiPool", 1, 2, 2}, {"MaxUnpool", 9, 2, 3}, {"Mean", 1, 1, kMany},
    {"MeanVarianceNormalization", 9, 1, 1}, {"MelWeightMatrix", 17, 5, 5}, {"Min", 1, 1, kMany},
    {"Mish", 18, 1, 1}, {"Mod", 10, 2, 2}, {"Mul", 1, 2, 2}, {"Multinomial", 7, 1, 1},
    {"Neg", 1, 1, 1}, {"NegativeLogLikelihoodLoss", 12, 2, 3}, {"NonMaxSuppression", 10, 2, 5},
    {"NonZero", 9, 1, 1}, {"Not", 1, 1, 1}, {"OneHot", 9, 3, 3}, {"Optional", 15, 0, 1},
    {"OptionalGetElement", 15, 1, 1}, {"OptionalHasElement", 15, 1, 1},
    {"OptionalHasElement", 18, 0, 1}, {"Or", 1, 2, 2}, {"PRelu", 1, 2, 2}, {"Pad", 1, 1, 1},
    {"Pad", 11, 2, 3}, {"Pad", 18, 2, 4}, {"Pow", 1, 2, 2}, {"QLinearConv", 10, 8, 9},
    {"QLinearMatMul", 10, 8, 8}, {"QuantizeLinear", 10, 2, 3}, {"RMSNormalization", 23, 2, 2},
    {"RNN", 1, 3, 6}, {"RandomNormal", 1, 0, 0}, {"RandomNormalLike", 1, 1, 1},
    {"RandomUniform", 1, 0, 0}, {"RandomUniformLike", 1, 1, 1}, {"Range", 11, 3, 3},
    {"Reciprocal", 1, 1, 1}, {"ReduceL1", 1, 1, 1}, {"ReduceL1", 18, 1, 2}, {"ReduceL2", 1, 1, 1},
    {"ReduceL2", 18, 1, 2}, {"ReduceLogSum", 1, 1, 1}, {"ReduceLogSum", 18, 1, 2},
    {"ReduceLogSumExp", 1, 1, 1}, {"ReduceLogSumExp", 18, 1, 2}, {"ReduceMax", 1, 1, 1},
    {"ReduceMax", 18, 1, 2}, {"ReduceMean", 1, 1, 1}, {"ReduceMean", 18, 1, 2},
    {"ReduceMin", 1, 1, 1}, {"ReduceMin", 18, 1, 2}, {"ReduceProd", 1, 1, 1},
    {"ReduceProd", 18, 1, 2}, {"ReduceSum", 1, 1, 1}, {"ReduceSum", 13, 1, 2},
    {"ReduceSumSquare", 1, 1, 1}, {"ReduceSumSquare", 18, 1, 2}, {"RegexFullMatch", 20, 1, 1},
    {"Relu", 1, 1, 1}, {"Reshape", 5, 2, 2}, {"Resize", 10, 2, 2}, {"Resize", 11, 3, 4},
    {"Resize", 13, 1, 4}, {"ReverseSequence", 10, 2, 2}, {"RoiAlign", 10, 3, 3},
    {"RotaryEmbedding", 23, 3, 4}, {"Round", 11, 1, 1}, {"STFT", 17, 2, 4}, {"Scan", 8, 2, kMany},
    {"Scan", 9, 1, kMany}, {"Scatter", 9, 3, 3}, {"ScatterElements", 11, 3, 3},
    {"ScatterND", 11, 3, 3}, {"Selu", 1, 1, 1}, {"SequenceAt", 11, 2, 2},
    {"SequenceConstruct", 11, 1, kMany}, {"SequenceEmpty", 11, 0, 0}, {"SequenceErase", 11, 1, 2},
    {"SequenceInsert", 11, 2, 3}, {"SequenceLength", 11, 1, 1}, {"SequenceMap", 17, 1, kMany},
    {"Shape", 1, 1, 1}, {"Shrink", 9, 1, 1}, {"Sigmoid", 1, 1, 1}, {"Sign", 9, 1, 1},
    {"Sin", 7, 1, 1}, {"Sinh", 9, 1, 1}, {"Size", 1, 1, 1}, {"Slice", 1, 1, 1}, {"Slice", 10, 3, 5},
    {"Softmax", 1, 1, 1}, {"SoftmaxCrossEntropyLoss", 12, 2, 3}, {"Softplus", 1, 1, 1},
    {"Softsign", 1, 1, 1}, {"SpaceToDepth", 1, 1, 1}, {"Split", 2, 1, 1}, {"Split", 13, 1, 2},
    {"SplitToSequence", 11, 1, 2}, {"Sqrt", 1, 1, 1}, {"Squeeze", 1, 1, 1}, {"Squeeze", 13, 1, 2},
    {"StringConcat", 20, 2, 2}, {"StringNormalizer", 10, 1, 1}, {"StringSplit", 20, 1, 1},
    {"Sub", 1, 2, 2}, {"Sum", 1, 1, kMany}, {"Swish", 24, 1, 1}, {"Tan", 7, 1, 1},
    {"Tanh", 1, 1, 1}, {"TensorScatter", 24, 2, 3}, {"TfIdfVectorizer", 9, 1, 1},
    {"ThresholdedRelu", 10, 1, 1}, {"Tile", 6, 2, 2}, {"TopK", 1, 1, 1}, {"TopK", 10, 2, 2},
    {"Transpose", 1, 1, 1}, {"Trilu", 14, 1, 2}, {"Unique", 11, 1, 1}, {"Unsqueeze", 1, 1, 1},
    {"Unsqueeze", 13, 2, 2}, {"Upsample", 1, 1, 1}, {"Upsample", 9, 2, 2}, {"Where", 9, 3, 3},
    {"Xor", 1, 2, 2},
};

struct TypedNames {
  const char* type;
  std::string_view names;  // each between spaces
};

// Few names stand for attributes of different types; those AttributeTypeOf knows.
constexpr TypedNames kAttributes[] = {
    {"int",
     " align_corners allowzero antialias axis batch_axis batch_dims block_size blocksize"
     " broadcast ceil_mode center_point_box count_include_pad detect_negative detect_positive"
     " dtype end exclude_outside exclusive fmod group hidden_size ignore_index input_forget"
     " interleaved inverse is_case_sensitive is_causal is_test k keepdims kv_num_heads largest"
     " layout linear_before_reset max_gram_length max_skip_count maxsplit min_gram_length"
     " new_axis noop_with_empty_axes num_groups num_heads num_outputs num_scan_inputs"
     " offset_group onesided output_datatype output_dtype output_height output_sequence"
     " output_width periodic precision q_num_heads qk_matmul_output_mode reverse"
     " rotary_embedding_dim sample_size sampling_ratio saturate select_last_index size"
     " softmax_precision sorted spatial start stash_type storage_order time_axis training_mode"
     " transA transB upper value_int "},
    {"float",
     " alpha beta bias clip cubic_coeff_a epsilon extrapolation_value gamma height_scale high"
     " lambd low max mean min momentum ratio scale softcap spatial_scale value_float width_scale "},
    {"string",
     " approximate auto_pad case_change_action coordinate_transformation_mode delimiter direction"
     " equation keep_aspect_ratio_policy locale mode nearest_mode padding_mode pattern"
     " pixel_format reduction round_mode value_string "},
    {"ints",
     " axes consumed_inputs dilations directions ends kernel_shape ngram_counts ngram_indexes"
     " output_padding output_shape paddings pads perm pool_int64s pooled_shape scan_input_axes"
     " scan_input_directions scan_output_axes scan_output_directions shape split starts strides"
     " value_ints "},
    {"floats",
     " activation_alpha activation_beta scales value_floats weights "},
    {"strings",
     " activations pool_strings stopwords value_strings "},
    {"graph",
     " body else_branch then_branch "},
};
// clang-format on

}  // namespace

std::optional<InputCount> InputCountOf(const std::string& op_type, int64_t opset) {
  std::optional<InputCount> found;
  const auto first = std::ranges::lower_bound(kSchemas, op_type, {}, &Schema::op_type);
  for (auto it = first; it != std::end(kSchemas) && it->op_type == op_type; ++it) {
    if (it->since <= opset) found = InputCount{it->inputs_min, it->inputs_max};
  }
  return found;
}

const char* AttributeTypeOf(const std::string& op_type, const std::string& attribute) {
  if (attribute == "to") return "int";
  if (attribute == "p") return "int";
  if (attribute == "seed") return op_type == "Dropout" ? "int" : "float";
  if (attribute == "value") return op_type == "Pad" ? "float" : "tensor";
  const std::string name = " " + attribute + " ";
  for (const TypedNames& typed : kAttributes) {
    if (typed.names.find(name) != std::string_view::npos) return typed.type;
  }
  return nullptr;
}

const char* TypeOfValue(const Attribute& attribute) {
  // As the alternatives of Attribute.value.
  static constexpr const char* kTypes[] = {nullptr,   "int",     "float", "string",
                                           "tensor",  "graph",   "ints",  "floats",
                                           "strings", "tensors", "graphs"};
  static_assert(std::size(kTypes) == std::variant_size_v<decltype(Attribute::value)>);
  return kTypes[attribute.value.index()];
}

}  // namespace pared
