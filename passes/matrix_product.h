// Float products of what layers see, all finite, with the process's fastest kernels. Left operands
// that are mostly zeros, as pruned weights are, are multiplied by their nonzeros alone where that
// is faster: the bits are the same. No result depends on the number of threads.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pared {

// c [m][n] = a [m][k] b [k][n], row-major.
struct Product {
  int64_t m = 0, n = 0, k = 0;
  bool is_a_transposed = false, is_b_transposed = false;
};
std::vector<float> Multiply(const Product& product, const std::vector<float>& a,
                            const std::vector<float>& b);

// x^T x of x [count][k].
std::vector<float> Gram(const std::vector<float>& x, int64_t count, int64_t k);

// What a step of a blocked Cholesky factorization leaves: of matrix [n][n], in rows and columns
// from `end` = column + columns on, on and below the diagonal, l l^T is subtracted, where l are the
// rows from `end` on of columns [column, end). What is above the diagonal may change.
constexpr int64_t kOuterColumnsMax = 512;
struct OuterProduct {
  std::vector<float>& matrix;
  int64_t n = 0, column = 0, columns = 0;  // kOuterColumnsMax at most
};
void SubtractOuterProduct(const OuterProduct& product);

// A right operand b [k][n] that many products share: it is laid out for the kernels once.
class RightMatrix {
 public:
  RightMatrix(std::span<const float> b, int64_t k, int64_t n);

  // c [m][n] = a b, where a[i] is the i-th row of a.
  void Multiply(std::span<const float* const> a, std::span<float> c) const;

 private:
  int64_t k_, n_;
  std::vector<float> packed_;
};

}  // namespace pared
