// The bodies are in ONNX's textual syntax. An attribute that a node lacks has the default of the
// operator that reads it; an input left out is left out of the operators that read it.

#include "evaluator/composed_ops.h"

#include <string>
#include <string_view>

#include "base/error.h"
#include "evaluator/composed_attention.h"
#include "model/text.h"

namespace pared {
namespace {

constexpr std::string_view kMicrosoft = "com.microsoft";
constexpr std::string_view kMl = "ai.onnx.ml";

// A quantized operator is the float one between DequantizeLinear and QuantizeLinear; that is how
// ONNX Runtime defines them too.
std::string OfTwo(const Node& node) {
  const std::string op = node.op_type == "QLinearAdd" ? "Add" : "Mul";
  return R"((a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) => (y) {
    fa = DequantizeLinear(a, a_scale, a_zero)
    fb = DequantizeLinear(b, b_scale, b_zero)
    fy = )" +
         op + R"((fa, fb)
    y = QuantizeLinear(fy, y_scale, y_zero)
  })";
}

// `call`: "AveragePool <strides: ints = @strides>"; `attributes`: their names.
std::string OfOne(const std::string& attributes, const std::string& call) {
  return attributes + R"((x, x_scale, x_zero, y_scale, y_zero) => (y) {
    fx = DequantizeLinear(x, x_scale, x_zero)
    fy = )" +
         call + R"((fx)
    y = QuantizeLinear(fy, y_scale, y_zero)
  })";
}

void RefuseChannelsLast(const Node& node) {
  if (node.Int("channels_last", 0) == 0) return;
  throw Error(ErrorCode::kUnsupported, "channels_last is not supported", NodeLabel(node));
}

// What most exports of scikit-learn begin with.
std::string Scaler(const Node& node) {
  if (node.Floats("offset").empty() || node.Floats("scale").empty()) {
    throw Error(ErrorCode::kUnsupported, "must have offset and scale", NodeLabel(node));
  }
  return R"(<offset, scale>(x) => (y) {
    offsets = Constant <value_floats: floats = @offset> ()
    scales = Constant <value_floats: floats = @scale> ()
    f = Cast <to = 1> (x)
    d = Sub(f, offsets)
    y = Mul(d, scales)
  })";
}

// Columns of a matrix, or of one row: the classes of its labels.
std::string FeatureExtractor(const Node&) {
  return R"((x, places) => (y) {
    flat = Constant <value_ints = [-1]> ()
    at = Reshape(places, flat)
    picked = Gather <axis = -1> (x, at)
    y = Flatten <axis = -1> (picked)
  })";
}

std::string QuantizedSigmoid(const Node&) { return OfOne("", "Sigmoid"); }
std::string QuantizedLeakyRelu(const Node&) {
  return OfOne("<alpha>", "LeakyRelu <alpha: float = @alpha>");
}
std::string QuantizedSoftmax(const Node& node) {
  if (node.Int("opset", 13) < 13) {  // then over all axes from that one on
    return R"((x, x_scale, x_zero, y_scale, y_zero) => (y) {
      fx = DequantizeLinear(x, x_scale, x_zero)
      shape = Shape(fx)
      flat = Flatten <axis = )" +
           std::to_string(node.Int("axis", -1)) + R"(>(fx)
      soft = Softmax <axis = -1>(flat)
      fy = Reshape(soft, shape)
      y = QuantizeLinear(fy, y_scale, y_zero)
    })";
  }
  return OfOne("<axis>", "Softmax <axis: int = @axis>");
}
std::string QuantizedGlobalAveragePool(const Node& node) {
  RefuseChannelsLast(node);
  return OfOne("", "GlobalAveragePool");
}
std::string QuantizedAveragePool(const Node& node) {
  RefuseChannelsLast(node);
  return OfOne(
      "<kernel_shape, strides, pads, auto_pad, ceil_mode, count_include_pad>",
      "AveragePool <kernel_shape: ints = @kernel_shape, strides: ints = @strides, pads: ints = "
      "@pads, auto_pad: string = @auto_pad, ceil_mode: int = @ceil_mode, count_include_pad: int = "
      "@count_include_pad>");
}

std::string QuantizedConcat(const Node& node) {
  std::string inputs = "y_scale, y_zero", dequantized, joined;
  for (size_t i = 0; 3 * i + 4 < node.inputs.size(); ++i) {
    const std::string n = std::to_string(i);
    const std::string triple = "x" + n + ", s" + n + ", z" + n;
    inputs += ", " + triple;
    dequantized += "f" + n + " = DequantizeLinear(" + triple + ")\n";
    joined += (i == 0 ? "f" : ", f") + n;
  }
  return "<axis>(" + inputs + ") => (y) {" + dequantized + "fy = Concat <axis: int = @axis>(" +
         joined + ")\n" + "y = QuantizeLinear(fy, y_scale, y_zero) }";
}

std::string QuantizedWhere(const Node&) {
  return R"((c, a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) => (y) {
    fa = DequantizeLinear(a, a_scale, a_zero)
    fb = DequantizeLinear(b, b_scale, b_zero)
    fy = Where(c, fa, fb)
    y = QuantizeLinear(fy, y_scale, y_zero)
  })";
}

// The bias is int32, in units of a_scale * b_scale. Without y_scale the result is float.
std::string QuantizedGemm(const Node& node) {
  const std::string axis = node.Int("transB", 0) != 0 ? "0" : "1";
  std::string body =
      "<alpha: float = 1.0, transA: int = 0, transB: int = 0>(a, a_scale, a_zero, b, b_scale, "
      "b_zero, c, y_scale, y_zero) => (y) "
      "{ fa = DequantizeLinear(a, a_scale, a_zero)\n"
      "fb = DequantizeLinear <axis = " +
      axis +
      ">(b, b_scale, b_zero)\n"
      "product = Gemm <alpha: float = @alpha, transA: int = @transA, transB: int = @transB>(fa, "
      "fb)\n";
  std::string sum = "product";
  if (HasInput(node, 6)) {
    body +=
        "factor = Constant <value_float: float = @alpha>()\n"
        "unit = Mul(a_scale, b_scale)\n"
        "units = Mul(unit, factor)\n"
        "count = CastLike(c, a_scale)\n"
        "bias = Mul(count, units)\n"
        "sum = Add(product, bias)\n";
    sum = "sum";
  }
  body += HasInput(node, 7) ? "y = QuantizeLinear(" + sum + ", y_scale, y_zero)"
                            : "y = Identity(" + sum + ")";
  return body + "}";
}

// Integer products that leave as float.
std::string ScaledMatMul(const Node& node) {
  const bool is_dynamic = node.op_type == "DynamicQuantizeMatMul";
  const bool has_bias = HasInput(node, is_dynamic ? 4 : 6);
  std::string body = is_dynamic ? R"((x, b, b_scale, b_zero, bias) => (y) {
    a, a_scale, a_zero = DynamicQuantizeLinear(x))"
                                : "(a, b, a_scale, b_scale, a_zero, b_zero, bias) => (y) {";
  body += R"(
    sums = MatMulInteger(a, b, a_zero, b_zero)
    scale = Mul(a_scale, b_scale)
    floats = CastLike(sums, scale)
  )";
  if (!has_bias) return body + "y = Mul(floats, scale) }";
  return body + "product = Mul(floats, scale)\n y = Add(product, bias) }";
}

std::string BiasGelu(const Node&) {
  return "(x, bias) => (y) { sum = Add(x, bias)\n y = Gelu(sum) }";
}

// Outputs: y, the rows' mean and 1 / deviation, and the sum that is normalized.
std::string SkipNormalization(const Node& node) {
  const bool is_layer = node.op_type == "SkipLayerNormalization";
  std::string body = is_layer ? "<epsilon: float = 1e-12>(x, skip, gamma, beta, bias)"
                              : "<epsilon: float = 1e-5>(x, skip, gamma, bias)";
  body += "=> (y, mean, inverse, sum) { ";
  body += HasInput(node, is_layer ? 4 : 3) ? "skipped = Add(x, skip)\n sum = Add(skipped, bias)\n"
                                           : "sum = Add(x, skip)\n";
  if (is_layer) {
    return body +
           "y, mean, inverse = LayerNormalization <epsilon: float = @epsilon>(sum, gamma, beta) }";
  }
  return body +
         "y = RMSNormalization <epsilon: float = @epsilon>(sum, gamma)\n"
         "mean = Identity(y)\n inverse = Identity(y) }";
}

std::string SimplifiedNormalization(const Node&) {
  return "<axis, epsilon>(x, scale) => (y) { y = RMSNormalization <axis: int = @axis, epsilon: "
         "float = @epsilon>(x, scale) }";
}

// Places are counted where they are not given; the mask's row sums are how many tokens are valid.
std::string EmbedNormalization(const Node& node) {
  std::string body =
      "<epsilon: float = 1e-12>(ids, segments, word, place, segment, gamma, beta, mask, places) => "
      "(y, mask_index, sum) { words = Gather(word, ids)\n";
  if (HasInput(node, 8)) {
    body += "at = Gather(place, places)\n";
  } else {
    body +=
        "from = Constant <value_ints = [0]>()\n count = Shape <start = 1, end = 2>(ids)\n"
        "at = Slice(place, from, count, from)\n";
  }
  body += "placed = Add(words, at)\n";
  body += HasInput(node, 1) ? "parts = Gather(segment, segments)\n sum = Add(placed, parts)\n"
                            : "sum = Identity(placed)\n";
  body += "y = LayerNormalization <epsilon: float = @epsilon>(sum, gamma, beta)\n";
  body += HasInput(node, 7) ? "valid = Identity(mask)\n" : "valid = Sub(ids, ids)\n";
  return body +
         "tokens = Constant <value_ints = [1]>()\n"
         "mask_index = ReduceSum <keepdims = 0>(valid, tokens) }";
}

// loss = -weight[target] * log_probability[target]; elements of ignore_index count for nothing.
std::string LossBody(const Node& node) {
  const std::string reduction = node.String("reduction", "mean");
  std::string body;
  const bool ignores = node.attributes.contains("ignore_index");
  if (ignores) {
    body += "given = Constant <value_int = " + std::to_string(node.Int("ignore_index", 0)) +
            ">()\n"
            "ignored = CastLike(given, target)\n"
            "mask = Equal(target, ignored)\n"
            "none = Sub(ignored, ignored)\n"
            "index = Where(mask, none, target)\n";
  } else {
    body += "index = Identity(target)\n";
  }
  body +=
      "axis = Constant <value_ints = [1]>()\n"
      "columns = Unsqueeze(index, axis)\n"
      "picked = GatherElements <axis = 1>(x, columns)\n"
      "flat = Squeeze(picked, axis)\n"
      "negative = Neg(flat)\n";
  if (HasInput(node, 2)) {
    body += "weights = Gather(weight, index)\n";
  } else {
    body += "same = Equal(index, index)\n weights = CastLike(same, x)\n";
  }
  if (ignores) {
    body +=
        "zero_int = Constant <value_int = 0>()\n zero = CastLike(zero_int, x)\n"
        "counted = Where(mask, zero, weights)\n";
  } else {
    body += "counted = Identity(weights)\n";
  }
  if (reduction == "none") return body + "loss = Mul(negative, counted)\n";
  body += "losses = Mul(negative, counted)\n";
  if (reduction == "sum") return body + "loss = ReduceSum <keepdims = 0>(losses)\n";
  if (reduction != "mean") {
    throw Error(ErrorCode::kInvalidArgument,
                "reduction must be none, sum or mean, is \"" + reduction + "\"", NodeLabel(node));
  }
  return body +
         "total = ReduceSum <keepdims = 0>(losses)\n"
         "count = ReduceSum <keepdims = 0>(counted)\n"
         "loss = Div(total, count)\n";
}

std::string LikelihoodLoss(const Node& node) {
  return "(x, target, weight) => (loss) {" + LossBody(node) + "}";
}

std::string CrossEntropyLoss(const Node& node) {
  return "(scores, target, weight) => (loss, x) { x = LogSoftmax <axis = 1>(scores)\n" +
         LossBody(node) + "}";
}

std::string SliceLast(const std::string& out, const std::string& in, const std::string& range) {
  // `range`: start, end and step.
  return out + "_range = Constant <value_ints = [" + range + "]>()\n" + out + "_start, " + out +
         "_end, " + out + "_step = Split <num_outputs = 3>(" + out + "_range)\n" + out +
         " = Slice(" + in + ", " + out + "_start, " + out + "_end, last, " + out + "_step)\n";
}

// Pairs of elements, which lie side by side or half a row apart, are turned by an angle. x is
// [batch, heads, sequence, head], or [batch, sequence, heads * head] of `num_heads` heads, worked
// on as [batch, sequence, heads, head]: the angles [batch, sequence, half] get the axis of the
// heads.
std::string RotaryEmbedding(const Node& node) {
  const int64_t heads = node.Int("num_heads", 0), rotated = node.Int("rotary_embedding_dim", 0);
  const bool is_interleaved = node.Int("interleaved", 0) != 0;
  constexpr const char* kEnd = "9223372036854775807";
  const bool is_contributed = node.domain == kMicrosoft;
  std::string body =
      is_contributed ? "(x, place, cos_cache, sin_cache)" : "(x, cos_cache, sin_cache, place)";
  body += R"( => (y) { last = Constant <value_ints = [-1]>()
    shape = Shape(x)
    rank = Size(shape)
    one = Constant <value_ints = [1]>()
    four = Constant <value_ints = [4]>()
    missing = Sub(four, rank)
    heads_axis = Add(missing, one)
    same = Constant <value_ints = [0, 0]>()
    heads = Constant <value_ints = [)" +
          std::to_string(heads) + R"(]>()
    third = Mul(heads, missing)
    by_head = Concat <axis = 0>(same, third, last)
    all = Reshape(x, by_head)
  )";
  for (const std::string f : {"cos", "sin"}) {
    body += f + "_row = " +
            (is_contributed || HasInput(node, 3) ? "Gather(" + f + "_cache, place)"
                                                 : "Identity(" + f + "_cache)") +
            "\n" + f + " = Unsqueeze(" + f + "_row, heads_axis)\n";
  }
  const std::string dim = std::to_string(rotated);
  body += rotated > 0 ? SliceLast("part", "all", "0, " + dim + ", 1") +
                            SliceLast("rest", "all", dim + ", " + kEnd + ", 1")
                      : "part = Identity(all)\n";
  body += is_interleaved ? SliceLast("a", "part", std::string("0, ") + kEnd + ", 2") +
                               SliceLast("b", "part", std::string("1, ") + kEnd + ", 2")
                         : "a, b = Split <axis = -1, num_outputs = 2>(part)\n";
  body += R"(ac = Mul(a, cos)
    bs = Mul(b, sin)
    as = Mul(a, sin)
    bc = Mul(b, cos)
    real = Sub(ac, bs)
    imaginary = Add(as, bc)
  )";
  body += is_interleaved ? R"(real_1 = Unsqueeze(real, last)
    imaginary_1 = Unsqueeze(imaginary, last)
    pairs = Concat <axis = -1>(real_1, imaginary_1)
    part_shape = Shape(part)
    turned = Reshape(pairs, part_shape)
  )"
                         : "turned = Concat <axis = -1>(real, imaginary)\n";
  body += rotated > 0 ? "whole = Concat <axis = -1>(turned, rest)\n" : "whole = Identity(turned)\n";
  return body + "y = Reshape(whole, shape) }";
}

struct Composition {
  std::string_view domain, op_type;
  std::string (*body)(const Node& node);  // "<attributes>(inputs) => (outputs) { nodes }"
};

constexpr Composition kCompositions[] = {
    {"", "NegativeLogLikelihoodLoss", LikelihoodLoss},
    {"", "RotaryEmbedding", RotaryEmbedding},
    {"", "SimplifiedLayerNormalization", SimplifiedNormalization},
    {"", "SoftmaxCrossEntropyLoss", CrossEntropyLoss},
    {kMl, "ArrayFeatureExtractor", FeatureExtractor},
    {kMl, "Scaler", Scaler},
    {kMicrosoft, "Attention", PackedAttention},
    {kMicrosoft, "BiasGelu", BiasGelu},
    {kMicrosoft, "DynamicQuantizeMatMul", ScaledMatMul},
    {kMicrosoft, "EmbedLayerNormalization", EmbedNormalization},
    {kMicrosoft, "GroupQueryAttention", GroupQueryAttention},
    {kMicrosoft, "MatMulIntegerToFloat", ScaledMatMul},
    {kMicrosoft, "MultiHeadAttention", MultiHeadAttention},
    {kMicrosoft, "QAttention", QuantizedAttention},
    {kMicrosoft, "QGemm", QuantizedGemm},
    {kMicrosoft, "QLinearAdd", OfTwo},
    {kMicrosoft, "QLinearAveragePool", QuantizedAveragePool},
    {kMicrosoft, "QLinearConcat", QuantizedConcat},
    {kMicrosoft, "QLinearGlobalAveragePool", QuantizedGlobalAveragePool},
    {kMicrosoft, "QLinearLeakyRelu", QuantizedLeakyRelu},
    {kMicrosoft, "QLinearMul", OfTwo},
    {kMicrosoft, "QLinearSigmoid", QuantizedSigmoid},
    {kMicrosoft, "QLinearSoftmax", QuantizedSoftmax},
    {kMicrosoft, "QLinearWhere", QuantizedWhere},
    {kMicrosoft, "RotaryEmbedding", RotaryEmbedding},
    {kMicrosoft, "SkipLayerNormalization", SkipNormalization},
    {kMicrosoft, "SkipSimplifiedLayerNormalization", SkipNormalization},
};

}  // namespace

std::optional<Function> ComposeOp(const Node& node) {
  const std::string_view domain = node.domain == "ai.onnx" ? "" : std::string_view(node.domain);
  for (const Composition& composition : kCompositions) {
    if (composition.domain != domain || composition.op_type != node.op_type) continue;
    const std::string text = R"(<ir_version: 10, opset_import: ["" : 23]> g () => () {}
      <domain: "composed", opset_import: ["" : 23, "pared" : 1]> )" +
                             node.op_type + " " + composition.body(node);
    return ParseText(text).functions.at(0);
  }
  return std::nullopt;
}

}  // namespace pared
