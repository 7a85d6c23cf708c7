// Conversions between float and the 16-bit floats, one element at a time and in bulk.

#pragma once

#include <bit>
#include <cstdint>

#include "evaluator/ops.h"
#include "model/tensor.h"

namespace pared {

inline float ToFloat(BFloat16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

float ToFloat(Float16 value);

// Round to nearest, ties to even; too large becomes infinity; a NaN stays one.
BFloat16 ToBFloat16(float value);
Float16 ToFloat16(float value);

inline bool IsHalfFloat(DType dtype) {
  return dtype == DType::kFloat16 || dtype == DType::kBFloat16;
}

// float16 or bfloat16 to float32.
Tensor WidenHalf(const Tensor& half, Scratch& scratch);
// float32 to `dtype`, which is float16 or bfloat16.
Tensor NarrowToHalf(const Tensor& tensor, DType dtype, Scratch& scratch);

// Outputs of a float16 node that are float32 all the same: the mean and deviation of
// LayerNormalization, which are of the type it sums in.
bool MakesSingle(const Node& node, size_t output);

// Lets `op` see float32 where an input is float16 or bfloat16; its float32 outputs become that
// type where the first input has it, or no other input is float32: the first `narrowed`, the others
// stay float32. `constants`: by input, the constants already widened; null where there is none.
Op AroundHalfFloats(Op op, std::vector<std::shared_ptr<const Tensor>> constants, size_t narrowed);

}  // namespace pared
