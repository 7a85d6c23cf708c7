// MatMul, Gemm and their fused forms; the list of what else is linear or made of products.

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <vector>

#include "evaluator/activation.h"
#include "evaluator/attention.h"
#include "evaluator/einsum.h"
#include "evaluator/float_gemm.h"
#include "evaluator/matmul_nbits.h"
#include "evaluator/op_checks.h"
#include "evaluator/ops.h"
#include "evaluator/signal.h"

namespace pared {
namespace {

struct MatMulNode {
  std::string label;
  bool transpose_a = false, transpose_b = false;
  float alpha = 1;
  ActivationF32 activation;
  const F32Kernels* kernels = nullptr;
  std::shared_ptr<const PackedRhs> packed;  // null: the right operand is no constant matrix
};

// The shapes of one call: operands as stacks of matrices, one-dimensional ones made matrices.
struct MatMulPlan {
  int64_t m, k, n;
  Shape batch, output;
  std::vector<int64_t> a_matrix, b_matrix;  // of each product, which matrix of the stack
};

[[noreturn]] void RefuseShapes(const Shape& a, const Shape& b, const std::string& label) {
  RefuseNode("shapes " + ShapeText(a) + " and " + ShapeText(b) + " do not multiply", label);
}

// For each element of `batch`, the index within a stack of shape `own`, broadcast.
std::vector<int64_t> BroadcastIndices(const Shape& batch, const Shape& own) {
  const size_t lead = batch.size() - own.size();
  const Shape strides = StridesOf(own);
  std::vector<int64_t> indices(Sz(ElementCount(batch)));
  for (size_t i = 0; i < indices.size(); ++i) {
    size_t rest = i;
    for (size_t axis = batch.size(); axis-- > lead;) {
      const size_t at = rest % static_cast<size_t>(batch[axis]);
      rest /= static_cast<size_t>(batch[axis]);
      if (own[axis - lead] != 1) indices[i] += static_cast<int64_t>(at) * strides[axis - lead];
    }
  }
  return indices;
}

Shape BroadcastBatch(const Shape& a, const Shape& b, bool& fits) {
  Shape batch(std::max(a.size(), b.size()));
  for (size_t i = 0; i < batch.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    fits = fits && (x == y || x == 1 || y == 1);
    batch[batch.size() - 1 - i] = x == 1 ? y : x;
  }
  return batch;
}

MatMulPlan PlanMatMul(const MatMulNode& node, Shape a, Shape b) {
  const Shape a_given = a;
  const Shape b_given = b;
  if (a.empty() || b.empty()) RefuseShapes(a, b, node.label);
  const bool drops_row = a.size() == 1;
  const bool drops_column = b.size() == 1;
  if (drops_row) a.insert(a.begin(), 1);
  if (drops_column) b.push_back(1);
  if (node.transpose_a) std::swap(a[a.size() - 1], a[a.size() - 2]);
  if (node.transpose_b) std::swap(b[b.size() - 1], b[b.size() - 2]);
  MatMulPlan plan{.m = a[a.size() - 2],
                  .k = a.back(),
                  .n = b.back(),
                  .batch = {},
                  .output = {},
                  .a_matrix = {},
                  .b_matrix = {}};
  bool fits = b[b.size() - 2] == plan.k;
  Shape a_batch(a.begin(), a.end() - 2);
  const Shape b_batch(b.begin(), b.end() - 2);
  plan.batch = BroadcastBatch(a_batch, b_batch, fits);
  if (!fits) RefuseShapes(a_given, b_given, node.label);
  plan.output = plan.batch;
  if (!drops_row) plan.output.push_back(plan.m);
  if (!drops_column) plan.output.push_back(plan.n);
  // One right matrix for all: the left stack is one tall matrix.
  if (ElementCount(b_batch) == 1 && !node.transpose_a && ElementCount(a_batch) > 0 &&
      a_batch.size() >= b_batch.size()) {
    plan.m *= ElementCount(a_batch);
    plan.batch.clear();
    a_batch.clear();
    plan.a_matrix = plan.b_matrix = {0};
    return plan;
  }
  plan.a_matrix = BroadcastIndices(plan.batch, a_batch);
  plan.b_matrix = BroadcastIndices(plan.batch, b_batch);
  return plan;
}

void RunFloatMatMul(const MatMulNode& node, const MatMulPlan& plan,
                    std::span<const Tensor* const> inputs, Tensor& output, Scratch& scratch) {
  const float* a = inputs[0]->data<float>().data();
  const float* b = inputs[1]->data<float>().data();
  float* c = scratch.Allocate<float>(output, plan.output).data();
  BatchedGemm gemm;
  gemm.m = plan.m;
  gemm.n = plan.n;
  gemm.k = plan.k;
  gemm.a_row_step = node.transpose_a ? 1 : plan.k;
  gemm.a_column_step = node.transpose_a ? plan.m : 1;
  gemm.b_row_step = node.transpose_b ? 1 : plan.n;
  gemm.b_column_step = node.transpose_b ? plan.k : 1;
  gemm.packed = node.packed.get();
  gemm.alpha = node.packed == nullptr ? node.alpha : 1;
  gemm.activation = node.activation;
  if (inputs.size() > 2 && inputs[2] != nullptr) {
    if (inputs[2]->count() != plan.n) RefuseNode("bias does not fit", node.label);
    gemm.column_bias = inputs[2]->data<float>().data();
  }
  if (inputs.size() > 3 && inputs[3] != nullptr) {
    if (inputs[3]->shape() != output.shape()) RefuseNode("addend does not fit", node.label);
    gemm.addend = inputs[3]->data<float>().data();
  }
  for (size_t i = 0; i < plan.a_matrix.size(); ++i) {
    gemm.products.push_back({a + plan.a_matrix[i] * plan.m * plan.k,
                             b + plan.b_matrix[i] * plan.k * plan.n,
                             c + static_cast<int64_t>(i) * plan.m * plan.n});
  }
  RunBatchedGemm(gemm, *node.kernels, scratch);
}

template <class T>
void MultiplyRows(const MatMulNode& node, const MatMulPlan& plan, const T* a, const T* b, T* c,
                  int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    T* out = c + row * plan.n;
    std::fill(out, out + plan.n, T{});
    for (int64_t k = 0; k < plan.k; ++k) {
      const T left = node.transpose_a ? a[k * plan.m + row] : a[row * plan.k + k];
      for (int64_t j = 0; j < plan.n; ++j) {
        const T right = node.transpose_b ? b[j * plan.k + k] : b[k * plan.n + j];
        out[j] = static_cast<T>(out[j] + left * right);
      }
    }
  }
}

template <class T>
void RunPlainMatMul(const MatMulNode& node, const MatMulPlan& plan,
                    std::span<const Tensor* const> inputs, Tensor& output, Scratch& scratch) {
  const T* a = inputs[0]->data<T>().data();
  const T* b = inputs[1]->data<T>().data();
  T* c = scratch.Allocate<T>(output, plan.output).data();
  for (size_t i = 0; i < plan.a_matrix.size(); ++i) {
    const T* left = a + plan.a_matrix[i] * plan.m * plan.k;
    const T* right = b + plan.b_matrix[i] * plan.k * plan.n;
    T* out = c + static_cast<int64_t>(i) * plan.m * plan.n;
    scratch.ParallelFor(plan.m, 1, [&](int64_t begin, int64_t end) {
      MultiplyRows(node, plan, left, right, out, begin, end);
    });
  }
  if constexpr (std::is_same_v<T, double>) {
    const size_t count = Sz(ElementCount(plan.output));
    for (size_t i = 0; i < count; ++i) c[i] *= static_cast<double>(node.alpha);
  }
}

// The right operand as a matrix where it is one (or a stack of one).
bool AsMatrix(const MatMulNode& node, const Tensor& b, MatrixF32& matrix) {
  const Shape& shape = b.shape();
  if (b.dtype() != DType::kFloat32 || shape.size() < 2 || b.count() == 0) return false;
  const int64_t rows = shape[shape.size() - 2];
  const int64_t columns = shape.back();
  if (rows * columns != b.count()) return false;
  matrix = {b.data<float>().data(), rows, columns, columns, 1};
  if (node.transpose_b) matrix = {matrix.data, columns, rows, 1, columns};
  return true;
}

std::shared_ptr<const PackedRhs> PackScaledConstant(const MatMulNode& node, const Tensor& b) {
  MatrixF32 matrix;
  if (!AsMatrix(node, b, matrix)) return nullptr;
  if (node.alpha == 1) return PackConstantRhs(matrix, *node.kernels);
  std::vector<float> scaled(matrix.data, matrix.data + b.count());
  for (float& value : scaled) value *= node.alpha;
  matrix.data = scaled.data();
  return PackConstantRhs(matrix, *node.kernels);
}

MatMulNode ReadMatMul(const Node& node, const OpContext& context) {
  MatMulNode matmul;
  matmul.label = NodeLabel(node);
  matmul.transpose_a = node.Int("transA", 0) != 0;
  matmul.transpose_b = node.Int("transB", 0) != 0;
  matmul.alpha = node.Float("alpha", 1);
  matmul.activation = ReadActivation(node);
  matmul.kernels = &F32KernelsFor(context.isa);
  if (context.constants.size() > 1 && context.constants[1] != nullptr) {
    matmul.packed = PackScaledConstant(matmul, *context.constants[1]);
  }
  return matmul;
}

Op PrepareMatMul(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 4);
  return [matmul = ReadMatMul(node, context)](std::span<const Tensor* const> inputs,
                                              std::span<Tensor> outputs, Scratch& scratch) {
    const DType dtype = inputs[0]->dtype();
    if (inputs[1]->dtype() != dtype) RefuseDType(inputs[1]->dtype(), matmul.label);
    const MatMulPlan plan = PlanMatMul(matmul, inputs[0]->shape(), inputs[1]->shape());
    if (dtype == DType::kFloat32) {
      return RunFloatMatMul(matmul, plan, inputs, outputs[0], scratch);
    }
    DispatchNumber(dtype, matmul.label, [&]<class T>() {
      RunPlainMatMul<T>(matmul, plan, inputs, outputs[0], scratch);
    });
  };
}

// beta * C broadcast to [m, n].
template <class T>
void ExpandAddend(const Tensor& c, double beta, int64_t m, int64_t n, T* out) {
  const Shape& shape = c.shape();
  const int64_t columns = shape.empty() ? 1 : shape.back();
  const int64_t rows = shape.size() < 2 ? 1 : shape[0];
  const T* values = c.data<T>().data();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const int64_t at = (rows == 1 ? 0 : i * columns) + (columns == 1 ? 0 : j);
      out[i * n + j] = static_cast<T>(beta * static_cast<double>(values[at]));
    }
  }
}

void CheckAddend(const Tensor& c, const MatMulPlan& plan, const std::string& label) {
  const Shape& s = c.shape();
  const int64_t rows = s.size() < 2 ? 1 : s[0];
  const int64_t columns = s.empty() ? 1 : s.back();
  const bool fits =
      s.size() <= 2 && (rows == 1 || rows == plan.m) && (columns == 1 || columns == plan.n);
  if (!fits) RefuseNode("C of shape " + ShapeText(s) + " does not broadcast", label);
}

void RunFloatGemm(const MatMulNode& node, const MatMulPlan& plan, float beta,
                  std::span<const Tensor* const> inputs, Tensor& output, Scratch& scratch) {
  std::array<const Tensor*, 4> arguments = {inputs[0], inputs[1], nullptr, nullptr};
  Tensor expanded;
  if (inputs.size() > 2 && inputs[2] != nullptr) {
    const Tensor& c = *inputs[2];
    CheckAddend(c, plan, node.label);
    const bool is_row =
        c.count() == plan.n && (c.rank() == 1 || c.shape()[0] == 1 || c.rank() == 0);
    if (is_row && beta == 1) {
      arguments[2] = &c;
    } else {
      float* values = scratch.Allocate<float>(expanded, {plan.m, plan.n}).data();
      ExpandAddend<float>(c, static_cast<double>(beta), plan.m, plan.n, values);
      arguments[3] = &expanded;
    }
  }
  RunFloatMatMul(node, plan, arguments, output, scratch);
}

template <class T>
void RunPlainGemm(const MatMulNode& node, const MatMulPlan& plan, float beta,
                  std::span<const Tensor* const> inputs, Tensor& output, Scratch& scratch) {
  Tensor product;
  RunPlainMatMul<T>(node, plan, inputs, product, scratch);
  const T* sums = product.data<T>().data();
  const std::span<T> y = scratch.Allocate<T>(output, plan.output);
  if (inputs.size() > 2 && inputs[2] != nullptr) {
    CheckAddend(*inputs[2], plan, node.label);
    ExpandAddend<T>(*inputs[2], static_cast<double>(beta), plan.m, plan.n, y.data());
  } else {
    std::fill(y.begin(), y.end(), T{});
  }
  for (size_t i = 0; i < y.size(); ++i) {
    const double alpha = std::is_same_v<T, double> ? 1.0 : static_cast<double>(node.alpha);
    y[i] = static_cast<T>(y[i] + static_cast<T>(alpha * static_cast<double>(sums[i])));
  }
}

Op PrepareGemm(const Node& node, const OpContext& context) {
  CheckInputCount(node, 2, 3);
  const float beta = node.Float("beta", 1);
  return [gemm = ReadMatMul(node, context), beta](std::span<const Tensor* const> inputs,
                                                  std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& a = *inputs[0];
    const Tensor& b = *inputs[1];
    if (a.rank() != 2 || b.rank() != 2) RefuseShapes(a.shape(), b.shape(), gemm.label);
    if (a.dtype() != b.dtype()) RefuseDType(b.dtype(), gemm.label);
    const MatMulPlan plan = PlanMatMul(gemm, a.shape(), b.shape());
    if (a.dtype() == DType::kFloat32) {
      return RunFloatGemm(gemm, plan, beta, inputs, outputs[0], scratch);
    }
    DispatchNumber(a.dtype(), gemm.label, [&]<class T>() {
      RunPlainGemm<T>(gemm, plan, beta, inputs, outputs[0], scratch);
    });
  };
}

// By elimination with partial pivoting, in double.
double Determinant(std::vector<double> a, int64_t n) {
  double product = 1;
  const auto at = [&](int64_t r, int64_t c) -> double& { return a[Sz(r * n + c)]; };
  for (int64_t k = 0; k < n; ++k) {
    int64_t pivot = k;
    for (int64_t r = k + 1; r < n; ++r) {
      if (std::abs(at(r, k)) > std::abs(at(pivot, k))) pivot = r;
    }
    if (at(pivot, k) == 0) return 0;
    if (pivot != k) {
      for (int64_t c = k; c < n; ++c) std::swap(at(pivot, c), at(k, c));
      product = -product;
    }
    product *= at(k, k);
    for (int64_t r = k + 1; r < n; ++r) {
      const double factor = at(r, k) / at(k, k);
      for (int64_t c = k; c < n; ++c) at(r, c) -= factor * at(k, c);
    }
  }
  return product;
}

Op PrepareDet(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    Shape shape = inputs[0]->shape();
    const int64_t n = shape.empty() ? 0 : shape.back();
    if (shape.size() < 2 || shape[shape.size() - 2] != n)
      RefuseNode("needs square matrices", label);
    shape.resize(shape.size() - 2);
    DispatchFloat(inputs[0]->dtype(), label, [&]<class T>() {
      const T* x = inputs[0]->data<T>().data();
      const std::span<T> y = scratch.Allocate<T>(outputs[0], shape);
      for (size_t i = 0; i < y.size(); ++i) {
        const T* own = x + static_cast<int64_t>(i) * n * n;
        y[i] = static_cast<T>(Determinant({own, own + n * n}, n));
      }
    });
  };
}

constexpr std::array kOps = {
    OpInfo{"MatMul", "", PrepareMatMul},
    OpInfo{"Gemm", "", PrepareGemm},
    OpInfo{"Attention", "", PrepareAttention},
    OpInfo{"Einsum", "", PrepareEinsum},
    OpInfo{"Det", "", PrepareDet},
    OpInfo{"DFT", "", PrepareDft},
    OpInfo{"STFT", "", PrepareStft},
    OpInfo{"HannWindow", "", PrepareWindow},
    OpInfo{"HammingWindow", "", PrepareWindow},
    OpInfo{"BlackmanWindow", "", PrepareWindow},
    OpInfo{"MelWeightMatrix", "", PrepareMelWeightMatrix},
    OpInfo{"FusedMatMul", "com.microsoft", PrepareMatMul},
    OpInfo{"FusedGemm", "com.microsoft", PrepareGemm},
    OpInfo{"MatMulNBits", "com.microsoft", PrepareMatMulNBits},
    OpInfo{"FloatMatMul", "pared", PrepareMatMul},
    OpInfo{"AttentionMask", "pared", PrepareAttentionMask},
};

}  // namespace

std::span<const OpInfo> MatMulOps() { return kOps; }

}  // namespace pared
