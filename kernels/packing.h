// What every packed kernel keeps beside its weights.

#pragma once

#include <cstdint>

#include "kernels/aligned.h"
#include "kernels/gemm.h"

namespace pared {

// The epilogue as hot loops read it; `bias` and `scale` have one element a row.
struct EpilogueView {
  const int32_t* bias;
  const float* scale;
  GemmOutput output;
  int32_t zero_point, low, high;
  float high_minus_zero;
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
  EpilogueView view_;
};

// Bytes of one element of y.
int64_t OutputBytes(GemmOutput output);

// Checks what every kernel relies on; the fraction of weights that are not zero.
double CheckedDensity(const GemmWeights& weights);

// Weights as panels of `rows` rows, [k/4][rows][4]; k is padded with zeros and the last panel has
// the rows that are left.
AlignedBuffer<int8_t> PackDensePanels(const GemmWeights& weights, int64_t rows);

}  // namespace pared
