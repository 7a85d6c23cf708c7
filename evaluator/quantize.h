// What the unfused quantized operators share: rounding, zero points, the dynamic scale.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu.h"
#include "model/tensor.h"

namespace pared {

class Scratch;

// To the nearest whole number, ties to even.
float RoundEven(float value);

// The zero points as floats (exact: they have at most 16 bits, or are 0); `count` zeros where
// `zero_point` is null. Throws where it has another count.
std::vector<float> ZeroPoints(const Tensor* zero_point, int64_t count, const std::string& label);

struct DynamicScale {
  float scale = 1.0F;
  uint8_t zero_point = 0;
};

// What DynamicQuantizeLinear makes: codes, and the choice of their scale.
DynamicScale QuantizeDynamically(std::span<const float> values, std::span<uint8_t> codes, Isa isa,
                                 const Scratch& scratch);

}  // namespace pared
