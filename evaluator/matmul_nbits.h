// MatMulNBits of com.microsoft: a product with a matrix stored in blocks of small codes.

#pragma once

#include <span>
#include <vector>

#include "evaluator/ops.h"

namespace pared {

// y[.., n] = sum over k of x[.., k] w[n][k] + bias[n],  w[n][k] = scale * (code - zero_point).
// Inputs: x; codes, uint8 [N, blocks, block_size * bits / 8], low bits first; scales [N, blocks];
// zero points, codes like these, [N] rows of whole bytes, or floats [N, blocks]; the block of each
// k; bias. Codes of 2, 4 or 8 bits. Constant weights are expanded to float when prepared.
Op PrepareMatMulNBits(const Node& node, const OpContext& context);

// w of such a node, row by row; of `inputs` x and the bias are not looked at.
std::vector<float> ExpandMatMulNBits(const Node& node, std::span<const Tensor* const> inputs);

}  // namespace pared
