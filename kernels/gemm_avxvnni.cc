// Dense and sparse kernels for AVX-VNNI: 256 bits, VEX encoded, for CPUs without AVX-512.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/kernels.h"
#include "kernels/packing.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")

#include "kernels/vnni_256.h"

namespace pared {

std::unique_ptr<PackedGemm> PackDenseAvxVnni(const GemmWeights& weights) {
  return std::make_unique<Dense256<Vnni256>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse1x1AvxVnni(const GemmWeights& weights) {
  return std::make_unique<Sparse256<Vnni256, 1>>(weights);
}
std::unique_ptr<PackedGemm> PackSparse2x1AvxVnni(const GemmWeights& weights) {
  return std::make_unique<Sparse256<Vnni256, 2>>(weights);
}

}  // namespace pared

#pragma GCC pop_options
