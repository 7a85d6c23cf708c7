// Weights in blocks of small codes: real = scale * (code - zero_point), code from 0 to 2^bits - 1.
// Zero has the code zero_point, exactly: pruned weights stay zero.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "passes/least_squares.h"

namespace pared {

struct BlockForm {
  int64_t bits = 4;
  int64_t block_size = 32;    // along k; the last block of a row may be shorter
  bool is_symmetric = false;  // the zero point is 2^(bits - 1)
};

struct BlockScale {
  float scale = 1;  // may be negative: the extreme code then serves the largest positive weight
  int32_t zero_point = 0;

  int32_t CodeOf(float value, int64_t bits) const;
  float ValueOf(int32_t code) const { return scale * static_cast<float>(code - zero_point); }
};

// The one of a few clipped ranges, each fitted to its codes by least squares, with the least sum of
// importance * error^2. `importance`: of each value, or empty.
BlockScale ChooseBlockScale(std::vector<float> values, std::vector<float> importance,
                            const BlockForm& form);

// A weight [rows][k] in blocks along k.
struct BlockMatrix {
  BlockForm form;
  int64_t rows = 0, k = 0;
  std::vector<uint8_t> codes;      // [rows][k]
  std::vector<BlockScale> scales;  // [rows][blocks]

  int64_t blocks() const { return (k + form.block_size - 1) / form.block_size; }
  std::vector<float> Decoded() const;  // [rows][k]
};

// Rows along one axis of a tensor: element k of row r is
// values[(r / inner * k_count + k) * inner + r % inner].
struct AxisRows {
  std::span<const float> values;
  int64_t k_count = 1, inner = 1;

  int64_t rows() const { return std::ssize(values) / k_count; }
  int64_t Index(int64_t row, int64_t k) const {
    return (row / inner * k_count + k) * inner + row % inner;
  }
};

// Every weight rounded to the nearest code.
BlockMatrix RoundToNearest(const AxisRows& weight, const BlockForm& form);

// Columns of problem.original rounded one after the other, the later columns making up for the
// error of those before (Frantar et al., GPTQ, 2023). Zeros stay zeros. nullopt: h has no Cholesky
// factors, however much damping is added.
std::optional<BlockMatrix> RoundSecondOrder(const LeastSquares& problem, const BlockForm& form);

}  // namespace pared
