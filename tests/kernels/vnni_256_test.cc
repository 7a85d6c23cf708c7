// The AVX-VNNI kernels on a machine that has AVX-512 VNNI instead: the same source, in the EVEX
// encoding of the same instruction.

#include <gtest/gtest.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/packing.h"
#include "kernels/reference.h"
#include "kernels/sparse.h"

#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512vl,avx512vnni")

#include "kernels/vnni_256.h"

namespace pared {
namespace {

std::vector<std::unique_ptr<PackedGemm>> PackAll(const GemmWeights& weights) {
  std::vector<std::unique_ptr<PackedGemm>> packed;
  packed.push_back(std::make_unique<Dense256<Vnni256>>(weights));
  packed.push_back(std::make_unique<Sparse256<Vnni256, 1>>(weights));
  packed.push_back(std::make_unique<Sparse256<Vnni256, 2>>(weights));
  return packed;
}

}  // namespace
}  // namespace pared

#pragma GCC pop_options

namespace pared {
namespace {

TEST(Vnni256, EveryKernelEqualsTheReference) {
  if (!Includes(AvailableIsas().back(), Isa::kAvx512Vnni)) GTEST_SKIP() << "needs AVX-512 VNNI";
  std::mt19937 random(5);
  for (int64_t m : {1, 2, 5}) {
    for (int64_t k : {1, 3, 4, 6, 50, 2100}) {
      for (GemmOutput output : {GemmOutput::kUInt8, GemmOutput::kFloat32, GemmOutput::kInt32}) {
        std::vector<int8_t> values(static_cast<size_t>(m * k));
        for (int8_t& w : values) {
          w = random() % 2 == 0 ? int8_t{0} : static_cast<int8_t>(random() % 256);
        }
        GemmWeights weights{.m = m, .k = k, .values = values, .epilogue = {}};
        weights.epilogue.bias.assign(static_cast<size_t>(m), -9);
        weights.epilogue.scale.assign(static_cast<size_t>(m), 0.01F);
        weights.epilogue.output = output;
        weights.epilogue.zero_point = 100;
        AlignedBuffer<uint8_t> x(static_cast<size_t>(2 * k * 64));
        for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(random() % 256);
        const size_t bytes = static_cast<size_t>(2 * m * 64 * OutputBytes(output));
        AlignedBuffer<std::byte> expected(bytes);
        PackReferenceGemm(weights)->Run(x.data(), 2, expected.data(), nullptr);
        for (const std::unique_ptr<PackedGemm>& gemm : PackAll(weights)) {
          AlignedBuffer<std::byte> y(bytes), scratch(gemm->scratch_bytes());
          gemm->Run(x.data(), 2, y.data(), scratch.data());
          EXPECT_TRUE(std::equal(y.data(), y.data() + bytes, expected.data()))
              << gemm->kernel_name() << " m " << m << " k " << k;
          // Few columns: only these are compared, by rows of a tile.
          for (int64_t columns : {1, 16, 17, 48}) {
            std::fill(y.data(), y.data() + bytes, std::byte{0});
            gemm->RunColumns(x.data(), columns, y.data(), scratch.data());
            for (int64_t row = 0; row < m; ++row) {
              const int64_t begin = row * 64 * OutputBytes(output);
              EXPECT_TRUE(std::equal(y.data() + begin,
                                     y.data() + begin + columns * OutputBytes(output),
                                     expected.data() + begin))
                  << gemm->kernel_name() << " m " << m << " k " << k << " columns " << columns;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pared
