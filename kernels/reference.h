// The scalar epilogue and the oracle kernels; see reference.cc.

#pragma once

#include <cstdint>
#include <memory>

#include "kernels/gemm.h"
#include "kernels/gemv.h"

namespace pared {

// clamp(round_even(float(acc) * scale) + zero_point, low, high)
uint8_t RequantizeOne(int32_t acc, float scale, const GemmEpilogue& epilogue);

// Stores the output of row `row` for the sum `acc` as element `at` of y, which has the epilogue's
// type.
void StoreOne(int32_t acc, int64_t row, const GemmEpilogue& epilogue, void* y, int64_t at);

std::unique_ptr<PackedGemm> PackReferenceGemm(const GemmWeights& weights);
std::unique_ptr<PackedGemv> PackReferenceGemv(const GemmWeights& weights);

}  // namespace pared
