// The numbers behind evaluate.h: weights and their zeros, fidelity sums, percentiles.

#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

// A constant that a Conv, MatMul, Gemm, recurrent or Gather node multiplies or looks up, found
// through Reshape, Transpose, Cast, DequantizeLinear and the like. Each constant once.
struct WeightInfo {
  std::string node, value;  // its first reader; its own name
  int64_t count = 0;
  int64_t zeros = 0;     // elements that stand for 0: the zero point, where there is one
  bool is_int8 = false;  // stored in 8 bits
};

// Of the main graph and its subgraphs.
std::vector<WeightInfo> MeasureWeights(const Model& model);

// Share of elements that are not 0; of none 1.
template <class T>
double DensityOf(std::span<const T> values) {
  if (values.empty()) return 1;
  const auto zeros = std::count(values.begin(), values.end(), T{0});
  return 1 - static_cast<double>(zeros) / static_cast<double>(values.size());
}

// Whether an output of this type is a class that was chosen, or an input that is handed on: it
// tells little of what was computed.
bool HoldsIndices(DType dtype);

// The elements as float. Throws kUnsupported for types that are no numbers.
std::vector<float> ToFloats(const Tensor& tensor);

// Index of the largest element, the first of equals; NaN is never the largest. -1: none.
int64_t ArgMax(std::span<const float> values);

// Sums of one or more outputs against their reference. Elements that are not finite in the
// reference are left out; a non-finite element elsewhere counts as 0 and marks the sums.
struct FidelitySums {
  double reference_squares = 0, squares = 0, products = 0, error_squares = 0;
  bool has_nonfinite = false;

  // Outputs of another length than the reference's count as all zeros.
  void Add(std::span<const float> reference, std::span<const float> output);
  void Add(const FidelitySums& other);

  double SqnrDb() const;  // within [-200, 200]; 200: equal
  double Cosine() const;  // 1 where both are all zeros
};

// Of sorted values, `share` in [0, 1], by linear interpolation between neighbours.
double Percentile(std::span<const double> sorted, double share);

}  // namespace pared
