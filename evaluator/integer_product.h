// Products of 8-bit integers with constant weights, whatever the types and zero points, on the
// packed kernels: ConvInteger, MatMulInteger, QLinearConv and QLinearMatMul where fuse.cc has
// nothing better, and the dynamic forms made of them.
//
// Zero points of weights cost one more row in the GEMM, of ones, whose result are the sums of the
// columns of x (kernels/sums.h). Results are the exact integers that ONNX defines.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "evaluator/ops.h"
#include "kernels/gemm.h"
#include "kernels/gemv.h"
#include "kernels/sums.h"

namespace pared {

// What is made of the sums. Spans have one element or one for each channel m.
struct IntegerResult {
  DType dtype = DType::kInt32;  // kInt32, kFloat32, kUInt8 or kInt8
  std::span<const float> scale = {};
  std::span<const float> bias = {};  // kFloat32 only; empty: none
  bool relu = false;                 // kFloat32 only
  int32_t zero_point = 0;            // of codes, as their type has it
};

// Weights [m][k] of one group, in the form that kernels take.
class IntegerWeights {
 public:
  // `codes`: m * k of uint8 or int8, row-major, or [k][m] where `transposed`; `zero_point`: null,
  // one, or m. `bias`: added to the sums, [m] or empty.
  struct Source {
    const Tensor* codes = nullptr;
    int64_t first = 0;  // row
    int64_t m = 0, k = 0;
    bool transposed = false;
    const Tensor* zero_point = nullptr;
    std::span<const int32_t> bias = {};
    bool keeps_values = false;  // until ForgetValues
  };
  IntegerWeights(const Source& source, const OpContext& context);

  int64_t m() const { return m_; }
  int64_t k() const { return k_; }
  int64_t rows() const { return m_ + (has_zero_points_ ? 1 : 0); }  // of the GEMM
  double density() const { return density_; }
  const PackedGemm& gemm() const { return *gemm_; }
  const PackedGemv& gemv() const;
  // What is packed: rows() by k().
  GemmWeights Values() const;
  void ForgetValues() { values_ = {}; }

  // offset[m] of kernels/sums.h for activations whose uint8 zero point is `x_zero`.
  std::vector<int32_t> Offsets(int32_t x_zero) const;
  std::span<const int32_t> zero_points() const { return w_zero_; }

 private:
  int64_t m_, k_;
  Isa isa_;
  std::vector<int8_t> values_;  // [rows][k], the last row ones; empty: not kept
  std::vector<int32_t> w_zero_, sums_, bias_;
  bool has_zero_points_ = false;
  double density_ = 1;
  std::unique_ptr<PackedGemm> gemm_;
  std::unique_ptr<PackedGemv> gemv_;
};

// x * w' for w constant: a convolution over one or two axes, or a product with a matrix [k][m].
class IntegerProduct {
 public:
  virtual ~IntegerProduct() = default;
  // `x_zero`: null or a single zero point.
  virtual void Run(const Tensor& x, const Tensor* x_zero, const IntegerResult& result, Tensor& y,
                   Scratch& scratch) const = 0;
};

// Null where the packed kernels do not apply: w or its zero point not constant, k too long, other
// types, more axes. `bias` may be null.
struct IntegerOperands {
  const Tensor *w = nullptr, *w_zero = nullptr, *bias = nullptr;
};
std::unique_ptr<IntegerProduct> MakeIntegerConv(const Node& node, const IntegerOperands& operands,
                                                const OpContext& context);
std::unique_ptr<IntegerProduct> MakeIntegerMatMul(const Node& node, const IntegerOperands& operands,
                                                  const OpContext& context);

// Where x has a zero point for each row, which Run does not take.
bool HasOneZeroPoint(const Tensor* x_zero);

}  // namespace pared
