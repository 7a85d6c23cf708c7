#include "evaluator/composed_attention.h"

#include <initializer_list>

#include "base/error.h"

namespace pared {
namespace {

// The inputs of a contributed attention that its body does not cover.
void RefuseInputs(const Node& node, std::initializer_list<size_t> inputs) {
  for (const size_t input : inputs) {
    if (!HasInput(node, input)) continue;
    throw Error(ErrorCode::kUnsupported, "input " + std::to_string(input) + " is not supported",
                NodeLabel(node));
  }
}

constexpr const char* kAttributes =
    "<scale: float = 0.0, softcap: float = 0.0, mask_filter_value: float = -10000.0>";

// For Attention: what stands before its inputs.
std::string Heads(int64_t query_heads, int64_t key_heads) {
  return "Attention <q_num_heads = " + std::to_string(query_heads) +
         ", kv_num_heads = " + std::to_string(key_heads) + ", scale: float = @scale, ";
}

struct Given {
  bool mask, bias, past = false;
};

// Outputs of q, k and v, [batch, tokens, heads * size], with `mask`, `bias` and the past where the
// node has them.
std::string Attend(const Node& node, Given given) {
  if (node.Int("do_rotary", 0) != 0) {
    throw Error(ErrorCode::kUnsupported, "do_rotary is not supported", NodeLabel(node));
  }
  const int64_t heads = node.Int("num_heads", 0);
  std::string body, added = given.bias ? "bias" : "";
  if (given.mask) {
    body = "valid = pared.AttentionMask <filter: float = @mask_filter_value>(mask, k)\n";
    if (given.bias) body += "both = Add(valid, bias)\n";
    added = given.bias ? "both" : "valid";
  }
  body += "y, present_key, present_value = " + Heads(heads, heads) +
          "is_causal = " + std::to_string(node.Int("unidirectional", 0)) + ">(q, k, v, " + added;
  return body + (given.past ? ", past_key, past_value) }" : ") }");
}

// q, k and v of one product: equal parts, or as many columns as qkv_hidden_sizes says.
std::string SplitProduct(const Node& node) {
  const std::vector<int64_t> sizes = node.Ints("qkv_hidden_sizes");
  if (sizes.empty()) return "q, k, v = Split <axis = -1, num_outputs = 3>(all)\n";
  if (sizes.size() != 3) {
    throw Error(ErrorCode::kInvalidArgument,
                "qkv_hidden_sizes must be 3 sizes, are " + std::to_string(sizes.size()),
                NodeLabel(node));
  }
  return "sizes = Constant <value_ints = [" + std::to_string(sizes[0]) + ", " +
         std::to_string(sizes[1]) + ", " + std::to_string(sizes[2]) +
         "]>()\n q, k, v = Split <axis = -1>(all, sizes)\n";
}

void RefuseOutputs(const Node& node, size_t most) {
  if (node.outputs.size() <= most) return;
  throw Error(ErrorCode::kUnsupported,
              "outputs after the first " + std::to_string(most) + " are not supported",
              NodeLabel(node));
}

// Where the new keys go, and up to where a query sees: tokens of batch b begin at place
// max(0, seqlens[b] + 1 - tokens).
constexpr const char* kPlaces = R"(
    one = Constant <value_int = 1>()
    zero = Constant <value_int = 0>()
    first = Constant <value_ints = [1]>()
    last_place = Cast <to = 7>(seqlens)
    valid = Add(last_place, one)
    token_shape = Shape <start = 1, end = 2>(query)
    tokens = Squeeze(token_shape)
    before = Sub(valid, tokens)
    begin = Max(before, zero)
    order = Range(zero, tokens, one)
    begins = Unsqueeze(begin, first)
    places = Add(begins, order)
)";

// `name`: "key" or "value"; from `name`_new, [batch, heads, tokens, size].
std::string Present(const std::string& name, bool has_past) {
  const std::string present = "present_" + name, past = "past_" + name, made = name + "_new";
  if (!has_past) return present + " = Identity(" + made + ")\n";
  return name + "_shape = Shape(" + made + ")\n" + name + "_zeros = ConstantOfShape(" + name +
         "_shape)\n" + name + "_room = CastLike(" + name + "_zeros, " + made + ")\n" + name +
         "_long = Concat <axis = 2>(" + past + ", " + name + "_room)\n" + name +
         "_written = TensorScatter <axis = 2>(" + name + "_long, " + made + ", begin)\n" + name +
         "_past = Shape <start = 2, end = 3>(" + past + ")\n" + name + "_end = Max(" + name +
         "_past, total_1)\n" + present + " = Slice(" + name + "_written, from, " + name +
         "_end, axis)\n";
}

}  // namespace

bool HasInput(const Node& node, size_t input) {
  return input < node.inputs.size() && !node.inputs[input].empty();
}

std::string PackedAttention(const Node& node) {
  RefuseInputs(node, {4, 6});
  RefuseOutputs(node, 1);
  std::string body = std::string(kAttributes) +
                     "(x, w, w_bias, mask, past, bias) => (y) { product = MatMul(x, w)\n";
  body += HasInput(node, 2) ? "all = Add(product, w_bias)\n" : "all = Identity(product)\n";
  return body + SplitProduct(node) +
         Attend(node, {.mask = HasInput(node, 3), .bias = HasInput(node, 5)});
}

std::string QuantizedAttention(const Node& node) {
  RefuseInputs(node, {8});
  RefuseOutputs(node, 1);
  return std::string(kAttributes) +
         R"((x, w, w_bias, x_scale, w_scale, mask, x_zero, w_zero) => (y) {
    sums = MatMulInteger(x, w, x_zero, w_zero)
    scale = Mul(x_scale, w_scale)
    floats = CastLike(sums, scale)
    product = Mul(floats, scale)
    all = Add(product, w_bias)
  )" + SplitProduct(node) +
         Attend(node, {.mask = HasInput(node, 5), .bias = false});
}

std::string MultiHeadAttention(const Node& node) {
  RefuseInputs(node, {8, 9});
  RefuseOutputs(node, 3);
  const Given given{
      .mask = HasInput(node, 4), .bias = HasInput(node, 5), .past = HasInput(node, 6)};
  const bool is_packed = !HasInput(node, 1) || !HasInput(node, 2);
  if (is_packed || (given.mask && given.past)) {
    throw Error(ErrorCode::kUnsupported,
                "packed keys and values, and a padding mask together with a past, are not "
                "supported",
                NodeLabel(node));
  }
  std::string body = std::string(kAttributes) +
                     "(query, key, value, all, mask, bias, past_key, past_value) => (y, "
                     "present_key, present_value) { ";
  if (HasInput(node, 3)) {
    body +=
        "q_bias, k_bias, v_bias = Split <axis = 0, num_outputs = 3>(all)\n"
        "q = Add(query, q_bias)\n k = Add(key, k_bias)\n v = Add(value, v_bias)\n";
  } else {
    body += "q = Identity(query)\n k = Identity(key)\n v = Identity(value)\n";
  }
  return body + Attend(node, given);
}

std::string GroupQueryAttention(const Node& node) {
  RefuseInputs(node, {9, 10, 11, 12, 13});
  RefuseOutputs(node, 3);
  if (node.Int("smooth_softmax", 0) > 0) {
    throw Error(ErrorCode::kUnsupported, "smooth_softmax is not supported", NodeLabel(node));
  }
  const int64_t heads = node.Int("num_heads", 0), key_heads = node.Int("kv_num_heads", 0);
  const std::string count = std::to_string(key_heads);
  std::string body = std::string(kAttributes) +
                     "(query, key, value, past_key, past_value, seqlens, total, cos_cache, "
                     "sin_cache) => (y, present_key, present_value) {" +
                     kPlaces;
  if (HasInput(node, 1)) {
    body += "q = Identity(query)\n k = Identity(key)\n v = Identity(value)\n";
  } else {  // one row holds all three
    body += "parts = Constant <value_ints = [" + std::to_string(heads) + ", " + count + ", " +
            count +
            "]>()\n all_heads = Constant <value_int = " + std::to_string(heads + 2 * key_heads) +
            ">()\n width = Shape <start = 2, end = 3>(query)\n size = Div(width, all_heads)\n"
            "sizes = Mul(parts, size)\n q, k, v = Split <axis = -1>(query, sizes)\n";
  }
  const auto turned = [&](const std::string& x, int64_t own_heads) {
    if (node.Int("do_rotary", 0) == 0) return "Identity(" + x + ")\n";
    return "RotaryEmbedding <num_heads = " + std::to_string(own_heads) +
           ", interleaved = " + std::to_string(node.Int("rotary_interleaved", 0)) + ">(" + x +
           ", cos_cache, sin_cache, places)\n";
  };
  body += "q_turned = " + turned("q", heads) + "k_turned = " + turned("k", key_heads) +
          "by_head = Constant <value_ints = [0, 0, " + count + ", -1]>()\n" +
          R"(key_split = Reshape(k_turned, by_head)
    key_new = Transpose <perm = [0, 2, 1, 3]>(key_split)
    value_split = Reshape(v, by_head)
    value_new = Transpose <perm = [0, 2, 1, 3]>(value_split)
    total_64 = Cast <to = 7>(total)
    total_1 = Reshape(total_64, first)
    from = Constant <value_ints = [0]>()
    axis = Constant <value_ints = [2]>()
  )" + Present("key", HasInput(node, 3)) +
          Present("value", HasInput(node, 3)) + R"(
    key_count = Shape <start = 2, end = 3>(present_key)
    keys = Squeeze(key_count)
    key_order = Range(zero, keys, one)
    query_axes = Constant <value_ints = [1, 3]>()
    query_places = Unsqueeze(places, query_axes)
    past_and_self = LessOrEqual(key_order, query_places)
  )";
  if (const int64_t window = node.Int("local_window_size", -1); window > 0) {
    body += "window = Constant <value_int = " + std::to_string(window) +
            ">()\n oldest = Sub(query_places, window)\n recent = Greater(key_order, oldest)\n"
            "mask = And(past_and_self, recent)\n";
  } else {
    body += "mask = Identity(past_and_self)\n";
  }
  return body + "y = " + Heads(heads, key_heads) +
         "softcap: float = @softcap>(q_turned, present_key, present_value, mask) }";
}

}  // namespace pared
