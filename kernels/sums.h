// What becomes of the exact int32 sums of a product whose operands have zero points.
//
//   acc = sum over k of (w - w_zero) * (x - x_zero)
//       = sums - w_zero * column_sum + offset         sums = w * x, column_sum = sum over k of x,
//                                                     offset = x_zero * (k * w_zero - sum of w)
//   int32:  y = acc
//   float:  y = float(acc) * scale, then + bias, then max(y, 0)     each one IEEE single operation
//   codes:  y = saturate(round_even(float(acc) * scale) + zero_point)
//
// Sums come along the columns of one channel (pixels of an image) or along the channels of one
// column (features of a token); what belongs to a channel is then one value or an array, and the
// column sums the other way round. The sums wrap around modulo 2^32, as sums of products may before
// they are corrected. The same bits on every ISA.

#pragma once

#include <cstdint>

#include "kernels/cpu.h"

namespace pared {

enum class SumsAlong { kColumns, kChannels };

struct SumLine {
  SumsAlong along = SumsAlong::kColumns;
  int64_t count = 0;
  const int32_t* sums = nullptr;         // [count]
  const int32_t* column_sums = nullptr;  // [count], or 1 along channels; any where w_zero is 0
  const int32_t* w_zero = nullptr;       // 1, or [count] along channels
  const int32_t* offset = nullptr;       // likewise
};

struct SumsToFloat {
  const float* scale = nullptr;  // 1, or [count] along channels
  const float* bias = nullptr;   // likewise; null: none
  bool relu = false;
};

struct SumsToCodes {
  const float* scale = nullptr;  // as above
  int32_t zero_point = 0;        // 0 to 255: that of int8 codes plus 128
  bool is_signed = false;        // writes int8 codes
};

void StoreSums(const SumLine& line, int32_t* y, Isa isa) noexcept;
void StoreSums(const SumLine& line, const SumsToFloat& to, float* y, Isa isa) noexcept;
void StoreSums(const SumLine& line, const SumsToCodes& to, uint8_t* y, Isa isa) noexcept;

}  // namespace pared
