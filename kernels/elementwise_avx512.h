// AVX-512 versions of functions of elementwise.h, which dispatches to them.

#pragma once

#include <cstdint>
#include <span>

#include "kernels/elementwise.h"
#include "kernels/fixed_sum.h"

namespace pared {

void QuantizeAvx512(std::span<const float> x, QuantParams q, uint8_t* y) noexcept;
void DequantizeAvx512(std::span<const uint8_t> x, QuantParams q, float* y) noexcept;
void AddQuantizedAvx512(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params,
                        uint8_t* y) noexcept;
void MulQuantizedAvx512(std::span<const uint8_t> a, const uint8_t* b, const AddParams& params,
                        uint8_t* y) noexcept;
// Needs VBMI: HasAvx512Vbmi().
void LookUpAvx512(std::span<const uint8_t> x, const ByteTable& table, uint8_t* y) noexcept;

void AddFixedAvx512Vnni(std::span<const uint8_t> a, const uint8_t* b, const FixedSum& sum,
                        uint8_t* y) noexcept;

}  // namespace pared
