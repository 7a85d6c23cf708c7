// Matrix products, convolutions, pools, reductions, recurrent networks.

#include <algorithm>

#include "model/infer_context.h"

namespace pared {
namespace {

std::optional<Dims> MatMulShape(const InferContext& c, const Dims* a, const Dims* b) {
  if (a == nullptr || b == nullptr) return {};
  if (a->empty() || b->empty()) c.Fail("a matrix product needs operands of rank 1 at least");
  Dims left = *a;
  Dims right = *b;
  if (left.size() == 1) left.insert(left.begin(), Number(1));
  if (right.size() == 1) right.push_back(Number(1));
  const Dim& inner = left.back();
  const Dim& other = right[right.size() - 2];
  if (IsNumber(inner) && IsNumber(other) && inner.value != other.value) {
    c.Fail("the inner dimensions " + std::to_string(inner.value) + " and " +
           std::to_string(other.value) + " of the matrix product differ");
  }
  Dims shape =
      Broadcast(c, Dims(left.begin(), left.end() - 2), Dims(right.begin(), right.end() - 2));
  if (a->size() > 1) shape.push_back(left[left.size() - 2]);
  if (b->size() > 1) shape.push_back(right.back());
  return shape;
}

// Both operands have one type: that of the weight, where the other's is not known.
DType ProductType(const InferContext& c) {
  return c.dtype(0) == DType::kUndefined ? c.dtype(1) : c.dtype(0);
}

void MatMul(InferContext& c) { c.Set(0, ProductType(c), MatMulShape(c, c.dims(0), c.dims(1))); }

void MatMulInteger(InferContext& c) {
  c.Set(0, DType::kInt32, MatMulShape(c, c.dims(0), c.dims(1)));
}

void QLinearMatMul(InferContext& c) { c.Set(0, c.dtype(7), MatMulShape(c, c.dims(0), c.dims(3))); }

void Gemm(InferContext& c) {
  const Dims* a = c.dims(0);
  const Dims* b = c.dims(1);
  if (a == nullptr || b == nullptr) return c.Set(0, ProductType(c), std::nullopt);
  if (a->size() != 2 || b->size() != 2) c.Fail("Gemm needs two matrices");
  const bool trans_a = c.node.Int("transA", 0) != 0;
  const bool trans_b = c.node.Int("transB", 0) != 0;
  const Dim& inner = (*a)[trans_a ? 0 : 1];
  const Dim& other = (*b)[trans_b ? 1 : 0];
  if (IsNumber(inner) && IsNumber(other) && inner.value != other.value) {
    c.Fail("the inner dimensions " + std::to_string(inner.value) + " and " +
           std::to_string(other.value) + " of the matrix product differ");
  }
  c.Set(0, ProductType(c), Dims{(*a)[trans_a ? 1 : 0], (*b)[trans_b ? 0 : 1]});
}

struct Window {
  std::vector<int64_t> kernel, strides, dilations, pads;
  std::string auto_pad;
  bool ceil_mode = false;
};

Window WindowOf(const InferContext& c, std::vector<int64_t> kernel) {
  const size_t rank = kernel.size();
  Window w;
  w.strides = c.node.Ints("strides", std::vector<int64_t>(rank, 1));
  w.dilations = c.node.Ints("dilations", std::vector<int64_t>(rank, 1));
  w.pads = c.node.Ints("pads", std::vector<int64_t>(2 * rank, 0));
  w.auto_pad = c.node.String("auto_pad", "NOTSET");
  w.ceil_mode = c.node.Int("ceil_mode", 0) != 0;
  const auto check = [&](const char* name, size_t given, size_t wanted) {
    if (given == wanted) return;
    c.Fail(std::string(name) + " has " + std::to_string(given) + " entries; a kernel of rank " +
           std::to_string(rank) + " needs " + std::to_string(wanted));
  };
  check("strides", w.strides.size(), rank);
  check("dilations", w.dilations.size(), rank);
  check("pads", w.pads.size(), 2 * rank);
  for (size_t i = 0; i < rank; ++i) {
    if (w.strides[i] < 1 || w.dilations[i] < 1 || kernel[i] < 1) {
      c.Fail("strides, dilations and the kernel's size are at least 1");
    }
  }
  w.kernel = std::move(kernel);
  return w;
}

// ONNX's formulas for one axis of a convolution or pool.
Dim WindowedDim(const InferContext& c, const Window& w, size_t axis, const Dim& input) {
  if (!IsNumber(input)) return AnyDim();
  const int64_t stride = w.strides[axis];
  if (w.auto_pad.starts_with("SAME"))
    return Number(input.value / stride + (input.value % stride > 0));
  int64_t extent = 0;
  int64_t padded = input.value;
  if (__builtin_mul_overflow(w.kernel[axis] - 1, w.dilations[axis], &extent)) return AnyDim();
  if (w.auto_pad == "NOTSET") {
    const size_t rank = w.kernel.size();
    if (__builtin_add_overflow(padded, w.pads[axis], &padded)) return AnyDim();
    if (__builtin_add_overflow(padded, w.pads[rank + axis], &padded)) return AnyDim();
  }
  int64_t room = 0;
  if (__builtin_sub_overflow(padded - 1, extent, &room)) return AnyDim();
  if (room < 0) c.Fail("the window is larger than the padded input");
  int64_t count = room / stride + 1;
  if (w.ceil_mode && room % stride != 0) {
    ++count;
    // The last window must begin within the input or its left padding.
    const int64_t left = w.auto_pad == "NOTSET" ? w.pads[axis] : 0;
    if ((count - 1) * stride >= input.value + left) --count;
  }
  return Number(count);
}

// Batch and channels first, then the windowed axes.
Dims WindowedShape(const InferContext& c, const Dims& x, const Window& w, const Dim& channels) {
  if (x.size() != w.kernel.size() + 2) {
    c.Fail("the input has rank " + std::to_string(x.size()) + "; the kernel needs " +
           std::to_string(w.kernel.size() + 2));
  }
  Dims shape = {x[0], channels};
  for (size_t i = 0; i < w.kernel.size(); ++i) shape.push_back(WindowedDim(c, w, i, x[i + 2]));
  return shape;
}

// nullopt: not known.
std::optional<std::vector<int64_t>> KernelOf(const InferContext& c, const Dims* weight) {
  if (c.node.attributes.contains("kernel_shape")) return c.node.Ints("kernel_shape");
  if (weight == nullptr) return {};
  std::vector<int64_t> kernel;
  for (size_t i = 2; i < weight->size(); ++i) {
    if (!IsNumber((*weight)[i])) return {};
    kernel.push_back((*weight)[i].value);
  }
  return kernel;
}

void ConvAt(InferContext& c, size_t weight_input, DType dtype) {
  const Dims* x = c.dims(0);
  const Dims* weight = c.dims(weight_input);
  const auto kernel = KernelOf(c, weight);
  if (x == nullptr || !kernel.has_value()) return c.Set(0, dtype, std::nullopt);
  if (weight != nullptr && weight->size() < 3) c.Fail("the weight's rank is below 3");
  if (weight != nullptr && x->size() > 1) {
    const int64_t group = c.node.Int("group", 1);
    const Dim& channels = (*x)[1];
    const Dim wanted = Times((*weight)[1], Number(group));
    if (IsNumber(channels) && IsNumber(wanted) && channels.value != wanted.value) {
      c.Fail("the input has " + std::to_string(channels.value) + " channels; the weight needs " +
             std::to_string(wanted.value));
    }
  }
  c.Set(0, dtype,
        WindowedShape(c, *x, WindowOf(c, *kernel), weight == nullptr ? AnyDim() : (*weight)[0]));
}

void Conv(InferContext& c) { ConvAt(c, 1, ProductType(c)); }
void ConvInteger(InferContext& c) { ConvAt(c, 1, DType::kInt32); }
void QLinearConv(InferContext& c) { ConvAt(c, 3, c.dtype(7)); }

void ConvTranspose(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* weight = c.dims(1);
  const auto kernel = KernelOf(c, weight);
  if (x == nullptr || weight == nullptr || !kernel.has_value()) {
    return c.Set(0, ProductType(c), std::nullopt);
  }
  const Window w = WindowOf(c, *kernel);
  const size_t rank = kernel->size();
  if (x->size() != rank + 2 || weight->size() != rank + 2)
    c.Fail("ranks of input and weight differ");
  const Dim& channels = (*x)[1];
  const Dim& wanted = (*weight)[0];
  if (IsNumber(channels) && IsNumber(wanted) && channels.value != wanted.value) {
    c.Fail("the input has " + std::to_string(channels.value) + " channels; the weight needs " +
           std::to_string(wanted.value));
  }
  const std::vector<int64_t> extra = c.node.Ints("output_padding", std::vector<int64_t>(rank, 0));
  const std::vector<int64_t> stated = c.node.Ints("output_shape");
  if (extra.size() != rank || (!stated.empty() && stated.size() != rank)) {
    c.Fail("output_padding and output_shape do not fit a kernel of rank " + std::to_string(rank));
  }
  Dims shape = {(*x)[0], Times((*weight)[1], Number(c.node.Int("group", 1)))};
  for (size_t i = 0; i < rank; ++i) {
    const Dim& input = (*x)[i + 2];
    if (!stated.empty()) {
      shape.push_back(Number(stated[i]));
    } else if (!IsNumber(input) || input.value > INT32_MAX) {
      shape.push_back(AnyDim());
    } else if (w.auto_pad.starts_with("SAME")) {
      shape.push_back(Times(input, Number(w.strides[i])));
    } else {
      const int64_t pads = w.auto_pad == "NOTSET" ? w.pads[i] + w.pads[rank + i] : 0;
      const int64_t extent = ((*kernel)[i] - 1) * w.dilations[i] + 1;
      int64_t size = 0;
      if (__builtin_mul_overflow(w.strides[i], input.value - 1, &size) ||
          __builtin_add_overflow(size, extra[i] + extent - pads, &size)) {
        c.Fail("strides or pads are larger than any output");
      }
      if (size < 0) c.Fail("the pads are larger than the output");
      shape.push_back(Number(size));
    }
  }
  c.Set(0, ProductType(c), std::move(shape));
}

void Pool(InferContext& c) {
  const Dims* x = c.dims(0);
  const auto kernel = KernelOf(c, nullptr);
  if (!kernel.has_value()) c.Fail("kernel_shape is missing");
  if (x == nullptr) return c.Set(0, c.dtype(0), std::nullopt);
  if (x->size() < 3) c.Fail("a pool needs an input of rank 3 at least");
  const Dims shape = WindowedShape(c, *x, WindowOf(c, *kernel), (*x)[1]);
  c.Set(0, c.dtype(0), shape);
  c.Set(1, DType::kInt64, shape);  // MaxPool's indices
}

void GlobalPool(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr) return c.Set(0, c.dtype(0), std::nullopt);
  Dims shape = *x;
  for (size_t i = 2; i < shape.size(); ++i) shape[i] = Number(1);
  c.Set(0, c.dtype(0), std::move(shape));
}

std::optional<Dims> ReducedShape(const InferContext& c, const Dims* x,
                                 const std::optional<std::vector<int64_t>>& axes) {
  const bool keep = c.node.Int("keepdims", 1) != 0;
  if (x == nullptr) return {};
  if (!axes.has_value()) return keep ? std::optional<Dims>(Dims(x->size())) : std::nullopt;
  if (axes->empty() && c.node.Int("noop_with_empty_axes", 0) != 0) return *x;
  std::vector<bool> reduced(x->size(), axes->empty());
  for (const int64_t axis : *axes) reduced[c.Axis(axis, x->size())] = true;
  Dims shape;
  for (size_t i = 0; i < x->size(); ++i) {
    if (!reduced[i]) shape.push_back((*x)[i]);
    if (reduced[i] && keep) shape.push_back(Number(1));
  }
  return shape;
}

void Reduce(InferContext& c) { c.Set(0, c.dtype(0), ReducedShape(c, c.dims(0), c.Axes(1))); }

void ArgReduce(InferContext& c) {
  const std::vector<int64_t> axis = {c.node.Int("axis", 0)};
  c.Set(0, DType::kInt64, ReducedShape(c, c.dims(0), axis));
}

// Y [seq, directions, batch, hidden], Y_h and for LSTM Y_c [directions, batch, hidden].
void Recurrent(InferContext& c) {
  const Dims* x = c.dims(0);
  const bool batch_first = c.node.Int("layout", 0) != 0;
  const Dims* r = c.dims(2);
  Dim hidden = AnyDim();
  if (c.node.attributes.contains("hidden_size")) {
    hidden = Number(c.node.Int("hidden_size", 0));
  } else if (r != nullptr && r->size() == 3) {
    hidden = (*r)[2];
  }
  const Dim directions = Number(c.node.String("direction", "forward") == "bidirectional" ? 2 : 1);
  if (x == nullptr || x->size() != 3) {
    for (size_t i = 0; i < c.outputs.size(); ++i) c.Set(i, c.dtype(0), Dims(i == 0 ? 4 : 3));
    return;
  }
  const Dim& steps = (*x)[batch_first ? 1 : 0];
  const Dim& batch = (*x)[batch_first ? 0 : 1];
  c.Set(0, c.dtype(0),
        batch_first ? Dims{batch, steps, directions, hidden}
                    : Dims{steps, directions, batch, hidden});
  for (size_t i = 1; i < c.outputs.size(); ++i) {
    c.Set(i, c.dtype(0),
          batch_first ? Dims{batch, directions, hidden} : Dims{directions, batch, hidden});
  }
}

void TypeOnly(InferContext& c) { c.Set(0, c.dtype(0), std::nullopt); }

void Scaler(InferContext& c) {
  const Dims* x = c.dims(0);
  c.Set(0, DType::kFloat32, x == nullptr ? std::nullopt : std::optional(*x));
}

void MatMulIntegerToFloat(InferContext& c) {
  c.Set(0, c.dtype(2), MatMulShape(c, c.dims(0), c.dims(1)));
}

void DynamicQuantizeMatMul(InferContext& c) {
  c.Set(0, c.dtype(0), MatMulShape(c, c.dims(0), c.dims(1)));
}

void FusedMatMul(InferContext& c) {
  const bool moves_batch = c.node.Int("transBatchA", 0) != 0 || c.node.Int("transBatchB", 0) != 0;
  if (c.dims(0) == nullptr || c.dims(1) == nullptr || moves_batch) {
    return c.Set(0, ProductType(c), std::nullopt);
  }
  Dims a = *c.dims(0), b = *c.dims(1);
  if (c.node.Int("transA", 0) != 0 && a.size() > 1) std::swap(a.back(), a[a.size() - 2]);
  if (c.node.Int("transB", 0) != 0 && b.size() > 1) std::swap(b.back(), b[b.size() - 2]);
  c.Set(0, ProductType(c), MatMulShape(c, &a, &b));
}

// The weight is in blocks; its columns are the attribute N.
void MatMulNBits(InferContext& c) {
  const Dims* a = c.dims(0);
  const int64_t columns = c.node.Int("N", -1);
  if (a == nullptr || a->empty() || columns < 0) return TypeOnly(c);
  Dims shape = *a;
  shape.back() = Number(columns);
  c.Set(0, c.dtype(0), std::move(shape));
}

Dim Quotient(const Dim& dim, int64_t by) {
  return by > 0 && IsNumber(dim) && dim.value % by == 0 ? Number(dim.value / by) : AnyDim();
}

// Queries as [batch, heads, steps, size] or [batch, steps, heads * size]; the result has the size
// of the values.
void Attention(InferContext& c) {
  for (size_t i = 1; i < c.outputs.size(); ++i) c.Set(i, c.dtype(i == 2 ? 2 : 0), std::nullopt);
  const Dims* q = c.dims(0);
  const Dims* v = c.dims(2);
  if (q == nullptr || (q->size() != 4 && q->size() != 3)) return TypeOnly(c);
  Dims shape = *q;
  shape.back() = AnyDim();
  if (v != nullptr && v->size() == q->size()) {
    const Dim heads = Number(c.node.Int("q_num_heads", 0));
    shape.back() = v->size() == 4
                       ? v->back()
                       : Times(Quotient(v->back(), c.node.Int("kv_num_heads", 0)), heads);
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

// x [batch, steps, k], one weight for queries, keys and values.
void PackedAttention(InferContext& c) {
  const Dims* x = c.dims(0);
  const Dims* weight = c.dims(1);
  if (x == nullptr || x->size() != 3) return TypeOnly(c);
  Dims shape = *x;
  const std::vector<int64_t> sizes = c.node.Ints("qkv_hidden_sizes");
  shape[2] = AnyDim();
  if (sizes.size() == 3 && sizes[2] >= 0) {
    shape[2] = Number(sizes[2]);
  } else if (sizes.empty() && weight != nullptr && weight->size() == 2) {
    shape[2] = Quotient((*weight)[1], 3);
  }
  c.Set(0, c.dtype(0), std::move(shape));
}

// Frames of a real or complex signal, their frequencies, real and imaginary part.
void ShortTransform(InferContext& c) {
  c.Set(0, c.dtype(0), Dims{AnyDim(), AnyDim(), AnyDim(), Number(2)});
}

void Determinant(InferContext& c) {
  const Dims* x = c.dims(0);
  if (x == nullptr || x->size() < 2) return TypeOnly(c);
  c.Set(0, c.dtype(0), Dims(x->begin(), x->end() - 2));
}

}  // namespace

const InferTable& ComputeInference() {
  static const InferTable kTable = [] {
    InferTable table = {{"MatMul", MatMul},
                        {"MatMulInteger", MatMulInteger},
                        {"QLinearMatMul", QLinearMatMul},
                        {"Gemm", Gemm},
                        {"Conv", Conv},
                        {"ConvInteger", ConvInteger},
                        {"QLinearConv", QLinearConv},
                        {"ConvTranspose", ConvTranspose},
                        {"DeformConv", Conv},
                        {"Attention", Attention},
                        {"DFT", TypeOnly},
                        {"STFT", ShortTransform},
                        {"Det", Determinant},
                        {"ai.onnx.ml.ArrayFeatureExtractor", TypeOnly},
                        {"ai.onnx.ml.Scaler", Scaler},
                        {"com.microsoft.Attention", PackedAttention},
                        {"com.microsoft.MultiHeadAttention", TypeOnly},
                        {"com.microsoft.FusedMatMul", FusedMatMul},
                        {"com.microsoft.MatMulNBits", MatMulNBits},
                        {"com.microsoft.MatMulIntegerToFloat", MatMulIntegerToFloat},
                        {"com.microsoft.DynamicQuantizeMatMul", DynamicQuantizeMatMul},
                        {"ArgMax", ArgReduce},
                        {"ArgMin", ArgReduce}};
    for (const char* op : {"MaxPool", "AveragePool", "LpPool"}) table.emplace(op, Pool);
    for (const char* op : {"GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"}) {
      table.emplace(op, GlobalPool);
    }
    for (const char* op :
         {"ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
          "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"}) {
      table.emplace(op, Reduce);
    }
    for (const char* op : {"LSTM", "GRU", "RNN"}) table.emplace(op, Recurrent);
    return table;
  }();
  return kTable;
}

}  // namespace pared
