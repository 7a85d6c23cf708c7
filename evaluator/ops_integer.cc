// Integer products as ONNX defines them, one by one: MatMulInteger, QLinearMatMul, ConvInteger and
// QLinearConv. Constant weights go to the packed kernels (integer_product.h); what does not fit
// those is exact and plain here.
//
// Operands have their zero points taken off and become int16, whose products the compiler sums in
// pairs; a convolution is a product of its weights with columns of its input.

#include <algorithm>
#include <limits>
#include <optional>

#include "evaluator/integer_product.h"
#include "evaluator/op_checks.h"
#include "evaluator/quantize.h"

namespace pared {
namespace {

// Elements less their zero points. `rows` x `columns`; one zero point, or one for each row or
// column.
enum class ZeroPointOf { kRow, kColumn };

struct Matrix {
  std::vector<int16_t> values;  // row-major, each row padded to `stride`
  int64_t rows = 0, columns = 0, stride = 0;
};

constexpr int64_t kPadding = 16;  // int16 in a row: a whole number of vectors

template <class T>
void Store(std::span<const T> x, std::span<const float> zero_points, ZeroPointOf which,
           bool transposes, Matrix& matrix) {
  for (int64_t r = 0; r < matrix.rows; ++r) {
    for (int64_t c = 0; c < matrix.columns; ++c) {
      const int64_t at = transposes ? c * matrix.rows + r : r * matrix.columns + c;
      const int64_t index = which == ZeroPointOf::kRow ? r : c;
      const float zero = zero_points[zero_points.size() == 1 ? 0 : Sz(index)];
      const int value = static_cast<int>(x[Sz(at)]) - static_cast<int>(zero);
      matrix.values[Sz(r * matrix.stride + c)] = static_cast<int16_t>(value);
    }
  }
}

Matrix Centered(const Tensor& x, int64_t begin, std::pair<int64_t, int64_t> size, bool transposes,
                std::span<const float> row_zero_points, const std::string& label) {
  Matrix matrix;
  matrix.rows = size.first;
  matrix.columns = size.second;
  matrix.stride = (matrix.columns + kPadding - 1) / kPadding * kPadding;
  matrix.values.resize(Sz(matrix.rows * matrix.stride));
  const size_t count = Sz(matrix.rows * matrix.columns);
  if (x.dtype() == DType::kUInt8) {
    Store(x.data<uint8_t>().subspan(Sz(begin), count), row_zero_points, ZeroPointOf::kRow,
          transposes, matrix);
  } else if (x.dtype() == DType::kInt8) {
    Store(x.data<int8_t>().subspan(Sz(begin), count), row_zero_points, ZeroPointOf::kRow,
          transposes, matrix);
  } else {
    RefuseDType(x.dtype(), label);
  }
  return matrix;
}

int32_t Dot(const int16_t* a, const int16_t* b, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<int32_t>(a[i]) * b[i];
  return sum;
}

// y[i][j] = sum over k of a[i][k] * b[j][k].
void Multiply(const Matrix& a, const Matrix& b, int32_t* y, Scratch& scratch) {
  scratch.AddMacs(a.rows * b.rows * a.columns);
  scratch.ParallelFor(a.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t j = 0; j < b.rows; ++j) {
        y[i * b.rows + j] = Dot(&a.values[Sz(i * a.stride)], &b.values[Sz(j * b.stride)], a.stride);
      }
    }
  });
}

// Where the parts of a quantized product stand among the inputs.
struct QuantizedInputs {
  const Tensor *a = nullptr, *a_zero = nullptr, *b = nullptr, *b_zero = nullptr;
};

struct ProductShape {
  Shape out;
  int64_t batches = 1, m = 1, k = 1, n = 1;
  std::vector<int64_t> a_batch, b_batch;  // by batch
};

ProductShape ShapeOfProduct(Shape a, Shape b, const std::string& label) {
  if (a.empty() || b.empty()) RefuseNode("its inputs must not be scalars", label);
  const bool is_row = a.size() == 1, is_column = b.size() == 1;
  if (is_row) a.insert(a.begin(), 1);
  if (is_column) b.push_back(1);
  ProductShape product;
  product.m = a[a.size() - 2];
  product.k = a.back();
  product.n = b.back();
  if (b[b.size() - 2] != product.k) {
    RefuseNode("cannot multiply " + ShapeText(a) + " by " + ShapeText(b), label);
  }
  const size_t rank = std::max(a.size(), b.size()) - 2;
  a.insert(a.begin(), rank + 2 - a.size(), 1);
  b.insert(b.begin(), rank + 2 - b.size(), 1);
  for (size_t axis = 0; axis < rank; ++axis) {
    if (a[axis] != b[axis] && a[axis] != 1 && b[axis] != 1) {
      RefuseNode("its batch axes do not broadcast", label);
    }
    product.out.push_back(a[axis] == 1 ? b[axis] : a[axis]);
  }
  product.batches = ElementCount(product.out);
  for (int64_t batch = 0; batch < product.batches; ++batch) {
    int64_t rest = batch, a_at = 0, b_at = 0, a_size = 1, b_size = 1;
    for (size_t axis = rank; axis-- > 0;) {
      const int64_t place = rest % product.out[axis];
      rest /= product.out[axis];
      a_at += (a[axis] == 1 ? 0 : place) * a_size;
      b_at += (b[axis] == 1 ? 0 : place) * b_size;
      a_size *= a[axis];
      b_size *= b[axis];
    }
    product.a_batch.push_back(a_at);
    product.b_batch.push_back(b_at);
  }
  if (!is_row) product.out.push_back(product.m);
  if (!is_column) product.out.push_back(product.n);
  return product;
}

// The zero points of matrix `batch`: one in all, one for each of `count` rows or columns, or that
// for each batch.
std::vector<float> ZeroPointsOfBatch(const Tensor* tensor, int64_t batch, int64_t count,
                                     const std::string& label) {
  const int64_t have = tensor == nullptr ? 1 : tensor->count();
  const std::vector<float> all = ZeroPoints(tensor, have, label);
  if (have <= count) return all;
  const size_t begin = Sz(std::min(batch * count, have - count));
  return {all.begin() + static_cast<int64_t>(begin),
          all.begin() + static_cast<int64_t>(begin) + count};
}

ProductShape MultiplyMatrices(const QuantizedInputs& in, Tensor& sums, Scratch& scratch,
                              const std::string& label) {
  const ProductShape p = ShapeOfProduct(in.a->shape(), in.b->shape(), label);
  int32_t* y = scratch.Allocate<int32_t>(sums, p.out).data();
  for (int64_t batch = 0; batch < p.batches; ++batch) {
    const int64_t a_batch = p.a_batch[Sz(batch)], b_batch = p.b_batch[Sz(batch)];
    const Matrix a = Centered(*in.a, a_batch * p.m * p.k, {p.m, p.k}, false,
                              ZeroPointsOfBatch(in.a_zero, a_batch, p.m, label), label);
    const Matrix b = Centered(*in.b, b_batch * p.k * p.n, {p.n, p.k}, true,
                              ZeroPointsOfBatch(in.b_zero, b_batch, p.n, label), label);
    Multiply(a, b, y + batch * p.m * p.n, scratch);
  }
  return p;
}

const Tensor* Given(std::span<const Tensor* const> inputs, size_t i) {
  return i < inputs.size() ? inputs[i] : nullptr;
}

// The constant operands of a product; nothing where the zero point is no constant.
std::optional<IntegerOperands> ConstantOperands(const OpContext& context, size_t w, size_t w_zero) {
  const auto constant = [&](size_t i) {
    return i < context.constants.size() ? context.constants[i] : nullptr;
  };
  const bool has_zero = w_zero < context.given.size() && context.given[w_zero];
  if (has_zero && constant(w_zero) == nullptr) return {};
  return IntegerOperands{.w = constant(w), .w_zero = constant(w_zero)};
}

bool IsByteTensor(const Tensor& x) {
  return x.dtype() == DType::kUInt8 || x.dtype() == DType::kInt8;
}

// The packed product where there is one and x suits it.
bool RunPacked(const IntegerProduct* packed, const QuantizedInputs& in, const IntegerResult& result,
               Tensor& y, Scratch& scratch) {
  if (packed == nullptr || !HasOneZeroPoint(in.a_zero) || !IsByteTensor(*in.a)) return false;
  packed->Run(*in.a, in.a_zero, result, y, scratch);
  return true;
}

Op PrepareMatMulInteger(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 4);
  std::shared_ptr<const IntegerProduct> packed;
  if (const auto operands = ConstantOperands(context, 1, 3)) {
    packed = MakeIntegerMatMul(node, *operands, context);
  }
  return [packed, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                           std::span<Tensor> outputs, Scratch& scratch) {
    const QuantizedInputs in{inputs[0], Given(inputs, 2), inputs[1], Given(inputs, 3)};
    if (RunPacked(packed.get(), in, {}, outputs[0], scratch)) return;
    MultiplyMatrices(in, outputs[0], scratch, label);
  };
}

// One scale, or one for each of `count` channels.
float ScaleAt(const Tensor& scale, int64_t channel) {
  return scale.data<float>()[scale.count() == 1 ? 0 : Sz(channel)];
}

// y = saturate(round_even(float(sum) * scale[channel]) + zero_point): the product of the scales is
// one float, as ONNX Runtime computes it.
void Requantize(const Tensor& sums, const Tensor& zero_point, std::span<const float> scales,
                int64_t inner, Tensor& out, Scratch& scratch, const std::string& label) {
  const std::span<const int32_t> x = sums.data<int32_t>();
  const auto store = [&]<class T>() {
    const float zero = static_cast<float>(zero_point.data<T>()[0]);
    const std::span<T> y = scratch.Allocate<T>(out, sums.shape());
    for (size_t i = 0; i < y.size(); ++i) {
      const float scale = scales[i / Sz(inner) % scales.size()];
      const float value = RoundEven(static_cast<float>(x[i]) * scale) + zero;
      constexpr float kLow = static_cast<float>(std::numeric_limits<T>::min());
      constexpr float kHigh = static_cast<float>(std::numeric_limits<T>::max());
      y[i] = static_cast<T>(std::clamp(value, kLow, kHigh));
    }
  };
  if (zero_point.dtype() == DType::kUInt8) {
    store.operator()<uint8_t>();
  } else if (zero_point.dtype() == DType::kInt8) {
    store.operator()<int8_t>();
  } else {
    RefuseDType(zero_point.dtype(), label);
  }
}

// x.scale * w.scale / y.scale, in the order in which ONNX Runtime computes it; one, or one for each
// of `channels`.
std::vector<float> ScalesOf(std::span<const Tensor* const> inputs, int64_t channels,
                            const std::string& label) {
  const int64_t count = inputs[4]->count();
  if (count != 1 && count != channels) {
    RefuseNode("needs one weight scale, or one for each of " + std::to_string(channels) +
                   " channels, has " + std::to_string(count),
               label);
  }
  std::vector<float> scales;
  for (int64_t n = 0; n < count; ++n) {
    scales.push_back(ScaleAt(*inputs[1], 0) * ScaleAt(*inputs[4], n) / ScaleAt(*inputs[6], 0));
  }
  return scales;
}

// Codes with the zero point and type that input 7 states.
std::optional<IntegerResult> CodesAsked(std::span<const Tensor* const> inputs,
                                        std::span<const float> scales) {
  const Tensor& zero_point = *inputs[7];
  if (!IsByteTensor(zero_point) || zero_point.count() != 1) return {};
  const int32_t zero = zero_point.dtype() == DType::kInt8 ? zero_point.data<int8_t>()[0]
                                                          : zero_point.data<uint8_t>()[0];
  return IntegerResult{.dtype = zero_point.dtype(), .scale = scales, .zero_point = zero};
}

Op PrepareQLinearMatMul(const Node& node, const OpContext& context) {
  CheckInputCount(node, 8, 8);
  std::shared_ptr<const IntegerProduct> packed;
  if (const auto operands = ConstantOperands(context, 3, 5)) {
    packed = MakeIntegerMatMul(node, *operands, context);
  }
  return [packed, label = NodeLabel(node)](std::span<const Tensor* const> inputs,
                                           std::span<Tensor> outputs, Scratch& scratch) {
    const QuantizedInputs in{inputs[0], inputs[2], inputs[3], inputs[5]};
    if (packed != nullptr) {
      const std::vector<float> scales = ScalesOf(inputs, in.b->shape()[1], label);
      const std::optional<IntegerResult> result = CodesAsked(inputs, scales);
      if (result && RunPacked(packed.get(), in, *result, outputs[0], scratch)) return;
    }
    Tensor sums;
    const ProductShape p = MultiplyMatrices(in, sums, scratch, label);
    const std::vector<float> scales = ScalesOf(inputs, p.n, label);
    Requantize(sums, *inputs[7], scales, 1, outputs[0], scratch, label);
  };
}

struct ConvPlace {
  Shape kernel, strides, dilations, pads;  // pads: begins, then ends
  int64_t groups = 1;
};

// The columns of one group's input that output place `at` sees, as one row of `row`.
template <class T>
void GatherWindow(const T* x, const Shape& size, std::span<const int64_t> at, const ConvPlace& conv,
                  std::pair<int64_t, int> channels_zero, int16_t* row) {
  const size_t axes = size.size();
  const int64_t window = ElementCount(conv.kernel), plane = ElementCount(size);
  for (int64_t w = 0; w < window; ++w) {
    int64_t rest = w, offset = 0, stride = 1;
    bool is_inside = true;
    for (size_t axis = axes; axis-- > 0;) {
      const int64_t tap = rest % conv.kernel[axis];
      rest /= conv.kernel[axis];
      const int64_t place =
          at[axis] * conv.strides[axis] - conv.pads[axis] + tap * conv.dilations[axis];
      is_inside = is_inside && place >= 0 && place < size[axis];
      offset += place * stride;
      stride *= size[axis];
    }
    for (int64_t c = 0; c < channels_zero.first; ++c) {
      const int value =
          is_inside ? static_cast<int>(x[c * plane + offset]) - channels_zero.second : 0;
      row[c * window + w] = static_cast<int16_t>(value);
    }
  }
}

ConvPlace PlaceConv(const Node& node, const Shape& x, const Shape& w, const std::string& label) {
  ConvPlace conv;
  if (x.size() < 3 || w.size() != x.size()) RefuseNode("its input and weights do not fit", label);
  const size_t axes = x.size() - 2;
  conv.groups = node.Int("group", 1);
  conv.kernel.assign(w.begin() + 2, w.end());
  conv.strides = node.Ints("strides", Shape(axes, 1));
  conv.dilations = node.Ints("dilations", Shape(axes, 1));
  conv.pads = node.Ints("pads", Shape(2 * axes, 0));
  const bool fits = conv.groups > 0 && x[1] == w[1] * conv.groups && w[0] % conv.groups == 0 &&
                    conv.strides.size() == axes && conv.dilations.size() == axes &&
                    conv.pads.size() == 2 * axes;
  if (!fits) RefuseNode("its attributes, input and weights do not fit", label);
  const std::string auto_pad = node.String("auto_pad", "NOTSET");
  for (size_t i = 0; i < axes; ++i) {
    if (conv.strides[i] < 1 || conv.dilations[i] < 1) RefuseNode("strides start at 1", label);
    if (auto_pad == "NOTSET") continue;
    const int64_t size = x[2 + i], span = (conv.kernel[i] - 1) * conv.dilations[i] + 1;
    const int64_t out = (size + conv.strides[i] - 1) / conv.strides[i];
    const int64_t total =
        auto_pad == "VALID" ? 0 : std::max<int64_t>(0, (out - 1) * conv.strides[i] + span - size);
    conv.pads[i] = auto_pad == "SAME_LOWER" ? total - total / 2 : total / 2;
    conv.pads[axes + i] = total - conv.pads[i];
  }
  return conv;
}

template <class T>
void ConvolveGroup(const T* x, int x_zero, const Matrix& weights, const Shape& size,
                   const Shape& out_size, const ConvPlace& conv, int32_t* y, Scratch& scratch) {
  const int64_t channels = weights.columns / ElementCount(conv.kernel);
  const int64_t places = ElementCount(out_size);
  scratch.AddMacs(weights.rows * weights.columns * places);
  scratch.ParallelFor(places, 16, [&](int64_t begin, int64_t end) {
    std::vector<int16_t> row(Sz(weights.stride));
    std::vector<int64_t> at(out_size.size());
    for (int64_t place = begin; place < end; ++place) {
      for (size_t axis = out_size.size(), rest = Sz(place); axis-- > 0;) {
        at[axis] = static_cast<int64_t>(rest) % out_size[axis];
        rest /= Sz(out_size[axis]);
      }
      GatherWindow(x, size, at, conv, {channels, x_zero}, row.data());
      for (int64_t m = 0; m < weights.rows; ++m) {
        y[m * places + place] =
            Dot(row.data(), &weights.values[Sz(m * weights.stride)], weights.stride);
      }
    }
  });
}

// Returns the number of places of an output channel.
int64_t Convolve(const Node& node, const QuantizedInputs& in, Tensor& sums, Scratch& scratch) {
  const std::string label = NodeLabel(node);
  const Shape &x = in.a->shape(), &w = in.b->shape();
  const ConvPlace conv = PlaceConv(node, x, w, label);
  const size_t axes = conv.kernel.size();
  Shape out = {x[0], w[0]};
  for (size_t i = 0; i < axes; ++i) {
    const int64_t span = (conv.kernel[i] - 1) * conv.dilations[i] + 1;
    const int64_t room = x[2 + i] + conv.pads[i] + conv.pads[axes + i] - span;
    out.push_back(room < 0 ? 0 : room / conv.strides[i] + 1);
  }
  const Shape size(x.begin() + 2, x.end()), out_size(out.begin() + 2, out.end());
  const int64_t places = ElementCount(out_size), plane = ElementCount(size);
  const int x_zero = static_cast<int>(ZeroPoints(in.a_zero, 1, label)[0]);
  const std::vector<float> w_zeros =
      ZeroPoints(in.b_zero, in.b_zero == nullptr ? 1 : in.b_zero->count(), label);
  const int64_t group_m = w[0] / conv.groups, k = w[1] * ElementCount(conv.kernel);
  int32_t* y = scratch.Allocate<int32_t>(sums, out).data();
  for (int64_t g = 0; g < conv.groups; ++g) {
    const std::span<const float> zeros(w_zeros);
    const auto own = zeros.size() == 1 ? zeros : zeros.subspan(Sz(g * group_m), Sz(group_m));
    const Matrix weights = Centered(*in.b, g * group_m * k, {group_m, k}, false, own, label);
    for (int64_t n = 0; n < x[0]; ++n) {
      const int64_t from = (n * x[1] + g * w[1]) * plane;
      int32_t* to = y + (n * w[0] + g * group_m) * places;
      if (in.a->dtype() == DType::kUInt8) {
        ConvolveGroup(in.a->data<uint8_t>().data() + from, x_zero, weights, size, out_size, conv,
                      to, scratch);
      } else if (in.a->dtype() == DType::kInt8) {
        ConvolveGroup(in.a->data<int8_t>().data() + from, x_zero, weights, size, out_size, conv, to,
                      scratch);
      } else {
        RefuseDType(in.a->dtype(), label);
      }
    }
  }
  return places;
}

Op PrepareConvInteger(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 4);
  std::shared_ptr<const IntegerProduct> packed;
  if (const auto operands = ConstantOperands(context, 1, 3)) {
    packed = MakeIntegerConv(node, *operands, context);
  }
  return [packed, node](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                        Scratch& scratch) {
    const QuantizedInputs in{inputs[0], Given(inputs, 2), inputs[1], Given(inputs, 3)};
    if (RunPacked(packed.get(), in, {}, outputs[0], scratch)) return;
    Convolve(node, in, outputs[0], scratch);
  };
}

std::shared_ptr<const IntegerProduct> PackQLinearConv(const Node& node, const OpContext& context) {
  std::optional<IntegerOperands> operands = ConstantOperands(context, 3, 5);
  if (!operands) return nullptr;
  const bool has_bias = context.given.size() > 8 && context.given[8];
  operands->bias = has_bias ? context.constants[8] : nullptr;
  if (has_bias && operands->bias == nullptr) return nullptr;
  return MakeIntegerConv(node, *operands, context);
}

Op PrepareQLinearConv(const Node& node, const OpContext& context) {
  CheckInputCount(node, 8, 9);
  return [packed = PackQLinearConv(node, context), node, label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const QuantizedInputs in{inputs[0], inputs[2], inputs[3], inputs[5]};
    if (packed != nullptr) {
      const std::vector<float> own = ScalesOf(inputs, in.b->shape()[0], label);
      const std::optional<IntegerResult> result = CodesAsked(inputs, own);
      if (result && RunPacked(packed.get(), in, *result, outputs[0], scratch)) return;
    }
    Tensor sums;
    const int64_t places = Convolve(node, in, sums, scratch);
    const int64_t channels = inputs[3]->shape()[0];
    if (const Tensor* bias = Given(inputs, 8)) {
      if (bias->count() != channels) RefuseNode("needs one bias for each channel", label);
      Tensor with_bias;
      const std::span<int32_t> y = scratch.Allocate<int32_t>(with_bias, sums.shape());
      const std::span<const int32_t> x = sums.data<int32_t>(), b = bias->data<int32_t>();
      for (size_t i = 0; i < y.size(); ++i) y[i] = x[i] + b[i / Sz(places) % b.size()];
      sums = std::move(with_bias);
    }
    const std::vector<float> scales = ScalesOf(inputs, channels, label);
    Requantize(sums, *inputs[7], scales, std::max<int64_t>(1, places), outputs[0], scratch, label);
  };
}

constexpr OpInfo kOps[] = {
    {"ConvInteger", "", PrepareConvInteger},
    {"MatMulInteger", "", PrepareMatMulInteger},
    {"QLinearConv", "", PrepareQLinearConv},
    {"QLinearMatMul", "", PrepareQLinearMatMul},
};

}  // namespace

std::span<const OpInfo> IntegerOps() { return kOps; }

}  // namespace pared
