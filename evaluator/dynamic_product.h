// Products of float rows with constant 8-bit weights; the rows' codes are found at each call.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "evaluator/integer_product.h"
#include "evaluator/ops.h"

namespace pared {

// y = (q - z) (w - w_zero) * (s * w_scale), where q, s and z are what DynamicQuantizeLinear makes
// of all of x together.
class DynamicProduct {
 public:
  struct Weights {
    Tensor codes;              // int8 or uint8 [k][m]
    Tensor zero_point;         // of their type: one, or one for each m
    std::vector<float> scale;  // likewise
  };
  // Throws kUnsupported for weights that the integer kernels do not take.
  DynamicProduct(const Node& node, Weights weights, const OpContext& context);

  // x: [rows][k]; y: [rows][m].
  void Run(const float* x, int64_t rows, float* y, Scratch& scratch) const;

 private:
  Weights weights_;
  Isa isa_;
  std::unique_ptr<const IntegerProduct> product_;
};

}  // namespace pared
