// Rounds the weights of one layer to codes, each so that those after it make up for its error.
//
// Minimizes (q - w) h (q - w)^T over codes q of a given scale, column after column (Frantar et al.,
// GPTQ, 2022). With h = R R^T, R upper triangular, the sum is that of the squares of
// m[j] = sum over i <= j of (q - w)[i] R[i][j]; each column takes the code that brings its m
// nearest to zero, given the codes before it.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "passes/layer_statistics.h"

namespace pared {

struct RoundingProblem {
  const LayerStatistics* statistics = nullptr;  // h of the inputs as the INT8 layer reads them
  const std::vector<float>* wanted = nullptr;   // w [rows][k]; zeros stay zeros
  const std::vector<float>* scales = nullptr;   // of each row
  int32_t code_max = 127;
  double damping = 0.01;  // added to h's diagonal, against its mean
};

// Codes [rows][k]. nullopt: the damped h has no Cholesky factor, however much damping is added.
std::optional<std::vector<int8_t>> RoundSecondOrder(const RoundingProblem& problem);

}  // namespace pared
