// Factors of what layers see, nearly all of whose work is products that the kernels do.

#pragma once

#include <cstdint>
#include <vector>

#include "passes/layer_statistics.h"

namespace pared {

// Upper r [k][k] with h + damping * mean(diag(h)) = r r^T; empty: there is none.
std::vector<float> UpperFactor(const LayerStatistics& statistics, double damping);

// The inverse of an upper triangular matrix [n][n], whose diagonal has no zero.
std::vector<float> InverseOfUpper(const std::vector<float>& upper, int64_t n);

// rows [row, row + rows) and columns [column, column + columns) of a matrix of that width.
std::vector<float> BlockOf(const std::vector<float>& matrix, int64_t width, int64_t row,
                           int64_t rows, int64_t column, int64_t columns);

}  // namespace pared
