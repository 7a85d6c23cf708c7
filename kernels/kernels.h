// The packing functions that candidates.cc lists, one for each format and ISA, and what they share.

#pragma once

#include <cstdint>
#include <memory>

#include "kernels/gemm.h"
#include "kernels/packing.h"

namespace pared {

std::unique_ptr<PackedGemm> PackDenseAvx512Vnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse1x1Avx512Vnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse2x1Avx512Vnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse4x1Avx512Vnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackDenseAvxVnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse1x1AvxVnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse2x1AvxVnni(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackDenseAvx2(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse1x1Avx2(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse2x1Avx2(const GemmWeights& weights);

}  // namespace pared
