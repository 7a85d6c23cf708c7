#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/gemv.h"
#include "kernels/reference.h"

namespace pared {
namespace {

TEST(Quantize, RoundsHalvesToEvenSaturatesAndSendsNanToZero) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {0,   0.25F, 0.75F, 1.25F, -0.25F, 300, -300, 1e30F, -1e30F,
                                inf, -inf,  NAN,   2,     3,      4,   5,    6,     63.75F};
  const std::vector<uint8_t> expected = {10,  10, 12, 12, 10, 255, 0,  255, 0,
                                         255, 0,  0,  14, 16, 18,  20, 22,  138};
  for (Isa isa : AvailableIsas()) {
    std::vector<uint8_t> y(x.size());
    Quantize(x, {.scale = 0.5F, .zero_point = 10}, y.data(), isa);
    EXPECT_EQ(y, expected) << IsaName(isa);
  }
}

// All pairs of codes, in float as the operators define it.
TEST(AddAndMul, EqualDequantizeComputeQuantize) {
  const AddParams p{.a = {0.1F, 3}, .b = {0.07F, 128}, .y = {0.2F, 60}, .low = 60, .high = 240};
  std::vector<uint8_t> a, b, sums, products;
  for (int i = 0; i < 256 * 256; ++i) {
    a.push_back(static_cast<uint8_t>(i / 256));
    b.push_back(static_cast<uint8_t>(i % 256));
    const float x = static_cast<float>(a.back() - 3) * 0.1F;
    const float z = static_cast<float>(b.back() - 128) * 0.07F;
    const auto quantize = [](float v) {
      return static_cast<uint8_t>(std::clamp(std::nearbyint(v / 0.2F) + 60.0F, 60.0F, 240.0F));
    };
    sums.push_back(quantize(x + z));
    products.push_back(quantize(x * z));
  }
  for (Isa isa : AvailableIsas()) {
    std::vector<uint8_t> y(a.size());
    AddQuantized(a, b.data(), p, y.data(), isa);
    EXPECT_TRUE(y == sums) << IsaName(isa);
    MulQuantized(a, b.data(), p, y.data(), isa);
    EXPECT_TRUE(y == products) << IsaName(isa);
  }
}

TEST(LookUp, MapsEveryCodeAndLeavesWhatIsBehind) {
  ByteTable table{};
  for (size_t i = 0; i < 256; ++i) table[i] = static_cast<uint8_t>(i * 37 + 11);
  std::vector<uint8_t> x;
  for (size_t i = 0; i < 300; ++i) x.push_back(static_cast<uint8_t>(i * 5));
  for (Isa isa : AvailableIsas()) {
    std::vector<uint8_t> y(301, 42);
    LookUp(x, table, y.data(), isa);
    for (size_t i = 0; i < 300; ++i) ASSERT_EQ(y[i], static_cast<uint8_t>(x[i] * 37 + 11));
    EXPECT_EQ(y[300], 42);
  }
}

TEST(RequantizeTable, ChangesScaleAndZeroPoint) {
  const ByteTable table = RequantizeTable({1.0F, 100}, {2.0F, 50});
  EXPECT_EQ(table[100], 50);
  EXPECT_EQ(table[102], 51);
  EXPECT_EQ(table[103], 52);  // 1.5 to even
  EXPECT_EQ(table[101], 50);  // 0.5 to even
  EXPECT_EQ(table[0], 0);
}

TEST(Layouts, RoundTripThroughPlanarTiles) {
  for (int64_t pixels : {1, 63, 64, 65, 130}) {
    for (int64_t channels : {1, 3, 70}) {
      const ImageSize size{channels, pixels};
      std::vector<float> x;
      for (int64_t i = 0; i < channels * pixels; ++i) x.push_back(static_cast<float>(i % 251));
      AlignedBuffer<uint8_t> planar(static_cast<size_t>(size.planar_bytes()));
      std::vector<float> y(x.size());
      const TileRange all{0, size.tiles()};
      QuantizeToPlanar(x.data(), size, {1, 0}, all, planar.data(), AvailableIsas().back());
      EXPECT_EQ(planar[static_cast<size_t>((channels - 1) * 64)],
                static_cast<uint8_t>((channels - 1) * pixels % 251));
      DequantizeFromPlanar(planar.data(), size, {1, 0}, all, y.data(), AvailableIsas().back());
      EXPECT_EQ(y, x);
      QuantizeRowsToPlanar(x.data(), size, {1, 0}, all, planar.data(), AvailableIsas().back());
      std::vector<uint8_t> rows(x.size());
      RowsFromPlanar(planar.data(), size, all, rows.data());
      EXPECT_TRUE(std::equal(rows.begin(), rows.end(), x.begin()));
      const std::vector<float> wide(planar.data(), planar.data() + planar.size());
      RowsFromPlanar(wide.data(), size, all, y.data());
      EXPECT_EQ(y, x);
      AlignedBuffer<uint8_t> again(planar.size());
      RowsToPlanar(rows.data(), size, all, again.data());
      for (int64_t n = 0; n < pixels; ++n) {
        for (int64_t c = 0; c < channels; ++c) {
          const auto at = static_cast<size_t>((n / 64 * channels + c) * 64 + n % 64);
          ASSERT_EQ(again[at], rows[static_cast<size_t>(n * channels + c)]) << n << " " << c;
        }
      }
    }
  }
}

TEST(Gemv, EveryKernelEqualsTheReference) {
  for (int64_t m : {1, 15, 16, 17, 40}) {
    for (int64_t k : {1, 3, 4, 5, 64, 131}) {
      for (GemmOutput output : {GemmOutput::kUInt8, GemmOutput::kFloat32, GemmOutput::kInt32}) {
        std::vector<int8_t> values;
        for (int64_t i = 0; i < m * k; ++i) {
          const bool is_zero = i / 4 % 3 == 0;
          values.push_back(is_zero ? int8_t{0} : static_cast<int8_t>(i * 89 % 256 - 128));
        }
        GemmWeights weights{.m = m, .k = k, .values = values, .epilogue = {}};
        weights.epilogue.bias.assign(static_cast<size_t>(m), 17);
        weights.epilogue.scale.assign(static_cast<size_t>(m), 0.003F);
        weights.epilogue.output = output;
        weights.epilogue.zero_point = 120;
        weights.epilogue.low = 3;
        for (int64_t n : {1, 2, 4, 7, 16}) {
          std::vector<uint8_t> x;
          for (int64_t i = 0; i < n * k; ++i) x.push_back(static_cast<uint8_t>(i * 71));
          const size_t bytes = static_cast<size_t>(n * m) * 4;
          std::vector<std::byte> expected(bytes), y(bytes);
          PackReferenceGemv(weights)->Run(x.data(), n, expected.data());
          for (Isa isa : AvailableIsas()) {
            std::fill(y.begin(), y.end(), std::byte{0});
            const std::unique_ptr<PackedGemv> gemv = PackGemv(weights, isa);
            gemv->Run(x.data(), n, y.data());
            EXPECT_TRUE(y == expected) << gemv->kernel_name() << " " << m << "x" << k << "x" << n;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace pared
