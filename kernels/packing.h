// What every packed kernel keeps beside its weights.

#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/aligned.h"
#include "kernels/gemm.h"

namespace pared {

// What the conversion of sums to codes must look after.
enum class CodeSaturation {
  kAny,    // a scale above 1/2: a product may overflow int32
  kInt32,  // none: `low` and `high` may wait until sums are bytes
  kPlain,  // and the saturation of the packs does it all: zero point 0, codes 0 to 255
};

// The epilogue as hot loops read it; `bias` and `scale` have one element a row.
struct EpilogueView {
  const int32_t* bias;
  const float* scale;
  GemmOutput output;
  int32_t zero_point, low, high;
  float high_minus_zero;
  CodeSaturation range;
  const int16_t* zero_points;   // 32 of them
  const uint8_t *lows, *highs;  // 64 each
};

// Owns what an EpilogueView points to. `rows` >= m: rows added by padding have bias and scale 0.
class PackedEpilogue {
 public:
  PackedEpilogue(const GemmEpilogue& epilogue, int64_t rows);
  EpilogueView view() const { return view_; }
  size_t size_bytes() const { return bias_.size_bytes() + scale_.size_bytes(); }

 private:
  AlignedBuffer<int32_t> bias_;
  AlignedBuffer<float> scale_;
  AlignedBuffer<int16_t> zero_points_;
  AlignedBuffer<uint8_t> limits_;
  EpilogueView view_;
};

// Bytes of one element of y.
inline int64_t OutputBytes(GemmOutput output) { return output == GemmOutput::kUInt8 ? 1 : 4; }

// The epilogue of a kernel that multiplies x - 128, as signed bytes, in place of x: the bias has
// 128 * sum over k of w[m][k] besides, modulo 2^32 as the kernel's own sums.
GemmEpilogue SignedInputEpilogue(const GemmWeights& weights);

// Checks what every kernel relies on; the fraction of weights that are not zero.
double CheckedDensity(const GemmWeights& weights);

// Weights as panels of R rows, [k/4][R][4] of int8 or, with group = 2, [k/2][R][2] of int16; k is
// padded with zeros. R is the first of `heights`, which
// ends in 1, that the rows left can fill.
AlignedBuffer<int8_t> PackDensePanels(const GemmWeights& weights, int64_t group,
                                      std::initializer_list<int64_t> heights);

}  // namespace pared
