// The packing functions that candidates.cc lists, one for each format and ISA, and what they share.

#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/gemm.h"
#include "kernels/gemv.h"
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
std::unique_ptr<PackedGemm> PackDenseNeonDot(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse1x1NeonDot(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse2x1NeonDot(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse4x1NeonDot(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackDenseNeonI8mm(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse1x1NeonI8mm(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse2x1NeonI8mm(const GemmWeights& weights);
std::unique_ptr<PackedGemm> PackSparse4x1NeonI8mm(const GemmWeights& weights);

std::unique_ptr<PackedGemv> PackGemv16x4Avx512Vnni(const GemmWeights& weights);
std::unique_ptr<PackedGemv> PackGemvAvx2(const GemmWeights& weights);
std::unique_ptr<PackedGemv> PackGemvNeonDot(const GemmWeights& weights);
std::unique_ptr<PackedGemv> PackGemvNeonI8mm(const GemmWeights& weights);

// One output row over the 64 columns of a tile, for depthwise convolutions: x is [k][64], w packed
// by PackDensePanels with rows of one, y the output's tile.
using DenseRow = void (*)(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                          int64_t row, void* y) noexcept;
void DenseRowAvx512Vnni(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                        int64_t row, void* y) noexcept;
// The same straight from the padded image: codes of `columns` that lie side by side, in whole
// vectors of 32, x being the first one's input at offset 0 of `taps`.
using SpanRow = void (*)(const uint8_t* x, std::span<const int64_t> taps, const int8_t* w,
                         int64_t columns, const EpilogueView& e, int64_t row,
                         uint8_t* codes) noexcept;
void SpanRowAvx2(const uint8_t* x, std::span<const int64_t> taps, const int8_t* w, int64_t columns,
                 const EpilogueView& e, int64_t row, uint8_t* codes) noexcept;
void DenseRowAvx2(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e, int64_t row,
                  void* y) noexcept;  // int16 weights: group = 2
void DenseRowNeonDot(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                     int64_t row, void* y) noexcept;  // with SignedInputEpilogue
void DenseRowNeonI8mm(const uint8_t* x, const int8_t* w, int64_t k, const EpilogueView& e,
                      int64_t row, void* y) noexcept;

}  // namespace pared
