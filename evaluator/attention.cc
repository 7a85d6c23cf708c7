// Attention of opset 23 and later: softmax(Q K' scale + bias) V, for each head.
//
// Keys and values are laid out as [batch][head][place][element]; with a past they are joined to it.
// Several heads of Q may share one of K and V.

#include "evaluator/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "evaluator/float_gemm.h"
#include "evaluator/op_checks.h"
#include "kernels/f32.h"

namespace pared {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

enum InputPlace : size_t { kQuery, kKey, kValue, kMask, kPastKey, kPastValue, kValidCounts };

struct AttentionAttributes {
  int64_t query_heads = 0, key_heads = 0;  // 0: the inputs have an axis of heads
  float scale = 0, softcap = 0;            // 0: not given
  bool is_causal = false;
  int64_t scores_mode = 0;  // what output 3 shows: 0, 1: scores, 2: with bias, 3: probabilities
  std::string label;
};

// [batch, places, heads * size] or [batch, heads, places, size] as the latter, behind `past`.
Tensor ByHead(const Tensor& x, int64_t heads, const Tensor* past, Scratch& scratch,
              const std::string& label) {
  const Shape& shape = x.shape();
  const bool has_heads = shape.size() == 4;
  if (!has_heads && (shape.size() != 3 || heads < 1 || shape[2] % heads != 0)) {
    RefuseNode("cannot split " + ShapeText(shape) + " into " + std::to_string(heads) + " heads",
               label);
  }
  if (has_heads && past == nullptr) return x;
  const int64_t count = has_heads ? shape[1] : heads, places = has_heads ? shape[2] : shape[1];
  const int64_t size = has_heads ? shape[3] : shape[2] / heads;
  const int64_t before = past == nullptr ? 0 : past->shape().at(2);
  if (past != nullptr && past->shape() != Shape{shape[0], count, before, size}) {
    RefuseNode("past of " + ShapeText(past->shape()) + " does not fit " + ShapeText(shape), label);
  }
  Tensor joined;
  float* y = scratch.Allocate<float>(joined, {shape[0], count, before + places, size}).data();
  const float* from = x.data<float>().data();
  const int64_t row_step = has_heads ? size : count * size;
  for (int64_t matrix = 0; matrix < shape[0] * count; ++matrix) {
    if (before > 0) {
      y = std::copy_n(past->data<float>().data() + matrix * before * size, before * size, y);
    }
    const float* row =
        from + (has_heads ? matrix * places * size
                          : matrix / count * places * row_step + matrix % count * size);
    for (int64_t place = 0; place < places; ++place) {
      y = std::copy_n(row + place * row_step, size, y);
    }
  }
  return joined;
}

// What is added to the scores: the mask, broadcast from the right, padded with -infinity.
class Bias {
 public:
  Bias(std::span<const Tensor* const> inputs, const AttentionAttributes& attributes,
       const Shape& scores)
      : scores_(scores), is_causal_(attributes.is_causal) {
    const auto given = [&](size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };
    mask_ = given(kMask);
    counts_ = given(kValidCounts);
    if (const Tensor* past = given(kPastKey)) offset_ = past->shape().at(2);
    if (counts_ != nullptr && counts_->count() != scores[0]) {
      RefuseNode("needs one nonpad_kv_seqlen for each batch", attributes.label);
    }
    if (mask_ == nullptr) return;
    const Shape& mask = mask_->shape();
    bool fits = !mask.empty() && mask.size() <= 4 && mask.back() <= scores[3];
    Shape strides = StridesOf(mask);
    for (size_t axis = 0; fits && axis < mask.size(); ++axis) {
      const size_t to = 4 - mask.size() + axis;
      if (to < 3 && mask[axis] != scores[to] && mask[axis] != 1) fits = false;
      strides_[to] = mask[axis] == 1 && (to < 3 || scores[3] == 1) ? 0 : strides[axis];
    }
    if (!fits) {
      RefuseNode("mask of " + ShapeText(mask) + " does not fit scores of " + ShapeText(scores),
                 attributes.label);
    }
  }

  // Of the scores of query `row`. Returns whether any place is left.
  bool Fill(int64_t batch, int64_t head, int64_t row, std::span<float> bias) const {
    const int64_t valid =
        counts_ == nullptr ? scores_[3] : std::min(scores_[3], counts_->data<int64_t>()[Sz(batch)]);
    const int64_t offset = counts_ == nullptr ? offset_ : valid - scores_[2];
    const int64_t end = is_causal_ ? std::clamp<int64_t>(row + offset + 1, 0, valid) : valid;
    const int64_t at = batch * strides_[0] + head * strides_[1] + row * strides_[2];
    bool is_open = false;
    for (int64_t j = 0; j < scores_[3]; ++j) {
      const float value = j < end ? MaskAt(at, j) : kMasked;
      bias[Sz(j)] = value;
      is_open = is_open || value != kMasked;
    }
    return is_open;
  }

 private:
  float MaskAt(int64_t at, int64_t column) const {
    if (mask_ == nullptr) return 0;
    if (column >= mask_->shape().back()) return kMasked;
    const size_t place = Sz(at + column * strides_[3]);
    if (mask_->dtype() == DType::kBool) return mask_->data<bool>()[place] ? 0 : kMasked;
    return mask_->data<float>()[place];
  }

  const Tensor* mask_ = nullptr;
  const Tensor* counts_ = nullptr;
  Shape scores_;
  int64_t strides_[4] = {};
  int64_t offset_ = 0;
  bool is_causal_ = false;
};

// Scores to probabilities in place; `shown` receives what output 3 shows, or is null.
void Normalize(const AttentionAttributes& attributes, const Bias& bias, const Shape& shape,
               const F32Kernels& kernels, float* scores, float* shown, Scratch& scratch) {
  const int64_t columns = shape[3];
  scratch.ParallelFor(shape[0] * shape[1] * shape[2], 16, [&](int64_t begin, int64_t end) {
    std::vector<float> added(Sz(columns));
    for (int64_t row = begin; row < end; ++row) {
      float* x = scores + row * columns;
      if (attributes.softcap > 0) {
        for (int64_t j = 0; j < columns; ++j) x[j] /= attributes.softcap;
        kernels.activate({ActivationKind::kTanh, 0, 0}, x, columns);
        for (int64_t j = 0; j < columns; ++j) x[j] *= attributes.softcap;
      }
      float* show = shown == nullptr ? nullptr : shown + row * columns;
      if (show != nullptr && attributes.scores_mode < 2) std::copy_n(x, columns, show);
      const int64_t matrix = row / shape[2];
      const bool is_open = bias.Fill(matrix / shape[1], matrix % shape[1], row % shape[2], added);
      for (int64_t j = 0; j < columns; ++j) x[j] += added[Sz(j)];
      if (show != nullptr && attributes.scores_mode == 2) std::copy_n(x, columns, show);
      if (is_open) {
        kernels.softmax(x, x, columns);
      } else {
        std::fill_n(x, columns, 0.0F);
      }
      if (show != nullptr && attributes.scores_mode == 3) std::copy_n(x, columns, show);
    }
  });
}

// [batch][head][place][size] to [batch][place][head * size].
Tensor JoinHeads(const Tensor& x, Scratch& scratch) {
  const Shape& s = x.shape();
  Tensor joined;
  float* y = scratch.Allocate<float>(joined, {s[0], s[2], s[1] * s[3]}).data();
  const float* from = x.data<float>().data();
  for (int64_t matrix = 0; matrix < s[0] * s[1]; ++matrix) {
    float* to = y + matrix / s[1] * s[1] * s[2] * s[3] + matrix % s[1] * s[3];
    for (int64_t place = 0; place < s[2]; ++place) {
      std::copy_n(from, s[3], to + place * s[1] * s[3]);
      from += s[3];
    }
  }
  return joined;
}

void RunAttention(const AttentionAttributes& attributes, const F32Kernels& kernels,
                  std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                  Scratch& scratch) {
  const auto given = [&](size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };
  for (size_t i = kQuery; i <= kValue; ++i) {
    if (inputs[i]->dtype() != DType::kFloat32) RefuseDType(inputs[i]->dtype(), attributes.label);
  }
  const std::string& label = attributes.label;
  const Tensor q = ByHead(*inputs[kQuery], attributes.query_heads, nullptr, scratch, label);
  const Tensor k = ByHead(*inputs[kKey], attributes.key_heads, given(kPastKey), scratch, label);
  const Tensor v = ByHead(*inputs[kValue], attributes.key_heads, given(kPastValue), scratch, label);
  const Shape &qs = q.shape(), &ks = k.shape(), &vs = v.shape();
  const bool fits = qs[0] == ks[0] && ks[0] == vs[0] && ks[1] == vs[1] && ks[2] == vs[2] &&
                    qs[3] == ks[3] && ks[1] > 0 && qs[1] % ks[1] == 0;
  if (!fits) {
    RefuseNode(ShapeText(qs) + ", " + ShapeText(ks) + " and " + ShapeText(vs) + " do not fit",
               label);
  }
  const Shape shape = {qs[0], qs[1], qs[2], ks[2]};
  Tensor scores, y;
  float* s = scratch.Allocate<float>(scores, shape).data();
  float* out = scratch.Allocate<float>(y, {qs[0], qs[1], qs[2], vs[3]}).data();
  BatchedGemm score{.m = qs[2], .n = ks[2], .k = qs[3]};
  score.a_row_step = qs[3], score.a_column_step = 1;
  score.b_row_step = 1, score.b_column_step = ks[3];
  score.alpha = attributes.scale != 0 ? attributes.scale : 1 / std::sqrt(static_cast<float>(qs[3]));
  BatchedGemm sum{.m = qs[2], .n = vs[3], .k = ks[2]};
  sum.a_row_step = ks[2], sum.a_column_step = 1;
  sum.b_row_step = vs[3], sum.b_column_step = 1;
  for (int64_t matrix = 0; matrix < qs[0] * qs[1]; ++matrix) {
    const int64_t shared = matrix / qs[1] * ks[1] + matrix % qs[1] / (qs[1] / ks[1]);
    float* own = s + matrix * qs[2] * ks[2];
    score.products.push_back({q.data<float>().data() + matrix * qs[2] * qs[3],
                              k.data<float>().data() + shared * ks[2] * ks[3], own});
    sum.products.push_back(
        {own, v.data<float>().data() + shared * vs[2] * vs[3], out + matrix * qs[2] * vs[3]});
  }
  RunBatchedGemm(score, kernels, scratch);
  float* shown = outputs.size() > 3 ? scratch.Allocate<float>(outputs[3], shape).data() : nullptr;
  Normalize(attributes, Bias(inputs, attributes, shape), shape, kernels, s, shown, scratch);
  RunBatchedGemm(sum, kernels, scratch);
  outputs[0] = inputs[kQuery]->rank() == 3 ? JoinHeads(y, scratch) : y;
  if (outputs.size() > 1) outputs[1] = k;
  if (outputs.size() > 2) outputs[2] = v;
}

}  // namespace

Op PrepareAttentionMask(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [filter = node.Float("filter", 0), label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Shape &mask = inputs[0]->shape(), &keys = inputs[1]->shape();
    if (keys.size() < 2) RefuseNode("needs keys of [batch, keys, ...]", label);
    const std::vector<int64_t> given = IntegersOf(*inputs[0], label);
    const int64_t batch = keys[0], count = keys[1];
    const bool is_lengths = mask == Shape{batch};
    const bool fits = is_lengths || mask == Shape{batch, count} ||
                      (mask.size() == 3 && mask[0] == batch && mask[2] == count);
    if (!fits) {
      throw Error(ErrorCode::kUnsupported,
                  "a mask of shape " + ShapeText(mask) + " for keys of " + ShapeText(keys), label);
    }
    const int64_t rows = mask.size() == 3 ? mask[1] : 1;
    const std::span<float> y = scratch.Allocate<float>(outputs[0], {batch, 1, rows, count});
    for (size_t i = 0; i < y.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      const bool is_valid = is_lengths ? at % count < given[Sz(at / count)] : given[i] != 0;
      y[i] = is_valid ? 0 : filter;
    }
  };
}

Op PrepareAttention(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 7);
  AttentionAttributes attributes;
  attributes.label = NodeLabel(node);
  attributes.query_heads = node.Int("q_num_heads", 0);
  attributes.key_heads = node.Int("kv_num_heads", 0);
  attributes.scale = node.Float("scale", 0);
  attributes.softcap = node.Float("softcap", 0);
  attributes.is_causal = node.Int("is_causal", 0) != 0;
  attributes.scores_mode = node.Int("qk_matmul_output_mode", 0);
  for (const char* side : {"left_window_size", "right_window_size"}) {
    if (node.Int(side, -1) == -1) continue;
    throw Error(ErrorCode::kUnsupported, std::string(side) + " is not supported", attributes.label);
  }
  return [attributes, &kernels = F32KernelsFor(context.isa)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    RunAttention(attributes, kernels, inputs, outputs, scratch);
  };
}

}  // namespace pared
