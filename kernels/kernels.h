// The packing functions that candidates.cc lists, one for each format and ISA, and what they share.

#pragma once

#include <cstdint>
#include <memory>

#include "kernels/gemm.h"
#include "kernels/packing.h"

namespace pared {

std::unique_ptr<PackedGemm> PackDenseAvx512Vnni(const GemmWeights& weights);

}  // namespace pared
