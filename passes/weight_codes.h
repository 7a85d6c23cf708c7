// Weights as small integers with scales, for storage: computed on a tensor as it lies, one at a
// time.

#pragma once

#include <cstdint>
#include <optional>

#include "model/tensor.h"
#include "passes/block_codes.h"
#include "passes/weights.h"

namespace pared {

// The code, -code_max to code_max, of which code * scale is nearest to `value`; ties to even.
int8_t NearestCode(float value, float scale, float code_max);

// real = scale * (code - zero point). Zeros stay zeros.
struct WeightCodes {
  Tensor codes;                         // int8 or int4, of the weight's shape
  Tensor scales;                        // float32
  std::optional<Tensor> zero_points{};  // of the scales' shape and the codes' type; else all 0
};

// int8, -code_max to code_max; one scale along `axis`, or one for all where there is none.
WeightCodes CodeChannels(const Tensor& weight, std::optional<int64_t> axis, float code_max = 127);

// Of stacked matrices: the axis along which scales lose least, of `channel`, the last one, and
// those of the stack. The loss is that of each column of each matrix, of its energy.
int64_t StackAxis(const Tensor& weight, int64_t channel);

// int4 in blocks along `axis`. Scales have the weight's shape with `axis` divided.
WeightCodes CodeBlocks(const Tensor& weight, int64_t axis, const BlockForm& form);

// The same of codes that are there already, whose rows lie along `axis` of `shape`.
WeightCodes PackBlocks(const BlockMatrix& matrix, const Shape& shape, int64_t axis);

// As MatMulNBits of com.microsoft takes them: codes uint8 [rows, blocks, block_size * bits / 8],
// scales [rows, blocks], zero points uint8 [rows, bytes]; 4 or 8 bits.
WeightCodes PackForMatMulNBits(const BlockMatrix& matrix);

// The weight as rows along `axis`, rounded to the nearest code.
BlockMatrix RoundAlong(const Tensor& weight, int64_t axis, const BlockForm& form);

// The axis of site.stored along which output channels lie; nullopt: none does.
std::optional<int64_t> StoredChannelAxis(const WeightSite& site);

}  // namespace pared
