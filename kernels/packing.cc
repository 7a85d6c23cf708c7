#include "kernels/packing.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace pared {
namespace {

CodeSaturation RangeOf(const GemmEpilogue& epilogue) {
  const auto is_small = [](float scale) { return std::abs(scale) <= 0.5F; };  // not NaN either
  if (!std::ranges::all_of(epilogue.scale, is_small)) return CodeSaturation::kAny;
  const bool is_plain = epilogue.zero_point == 0 && epilogue.low == 0 && epilogue.high == 255;
  return is_plain ? CodeSaturation::kPlain : CodeSaturation::kInt32;
}

}  // namespace

PackedEpilogue::PackedEpilogue(const GemmEpilogue& epilogue, int64_t rows)
    : bias_(static_cast<size_t>(rows)),
      scale_(static_cast<size_t>(rows)),
      zero_points_(32),
      limits_(128) {
  PARED_CHECK(static_cast<int64_t>(epilogue.bias.size()) <= rows);
  PARED_CHECK(epilogue.output == GemmOutput::kInt32 ||
              epilogue.scale.size() == epilogue.bias.size());
  std::copy(epilogue.bias.begin(), epilogue.bias.end(), bias_.data());
  std::copy(epilogue.scale.begin(), epilogue.scale.end(), scale_.data());
  view_ = {.bias = bias_.data(),
           .scale = scale_.data(),
           .output = epilogue.output,
           .zero_point = epilogue.zero_point,
           .low = epilogue.low,
           .high = epilogue.high,
           .high_minus_zero = static_cast<float>(epilogue.high - epilogue.zero_point),
           .range = RangeOf(epilogue),
           .zero_points = zero_points_.data(),
           .lows = limits_.data(),
           .highs = limits_.data() + 64};
  std::fill_n(zero_points_.data(), 32, static_cast<int16_t>(epilogue.zero_point));
  std::fill_n(limits_.data(), 64, static_cast<uint8_t>(epilogue.low));
  std::fill_n(limits_.data() + 64, 64, static_cast<uint8_t>(epilogue.high));
}

GemmEpilogue SignedInputEpilogue(const GemmWeights& weights) {
  GemmEpilogue epilogue = weights.epilogue;
  for (int64_t m = 0; m < weights.m; ++m) {
    const std::span row =
        weights.values.subspan(static_cast<size_t>(m * weights.k), static_cast<size_t>(weights.k));
    int32_t& bias = epilogue.bias[static_cast<size_t>(m)];
    const auto sum = static_cast<uint32_t>(std::accumulate(row.begin(), row.end(), int32_t{0}));
    bias = static_cast<int32_t>(static_cast<uint32_t>(bias) + 128 * sum);
  }
  return epilogue;
}

double CheckedDensity(const GemmWeights& weights) {
  PARED_CHECK(weights.m >= 1);
  PARED_CHECK(weights.k >= 1);
  PARED_CHECK(weights.k < 65536);
  PARED_CHECK(static_cast<int64_t>(weights.values.size()) == weights.m * weights.k);
  PARED_CHECK(static_cast<int64_t>(weights.epilogue.bias.size()) == weights.m);
  const int64_t zeros = std::count(weights.values.begin(), weights.values.end(), int8_t{0});
  return 1 - static_cast<double>(zeros) / static_cast<double>(weights.values.size());
}

AlignedBuffer<int8_t> PackDensePanels(const GemmWeights& weights, int64_t group,
                                      std::initializer_list<int64_t> heights) {
  const int64_t steps = (weights.k + group - 1) / group;
  AlignedBuffer<int8_t> packed(static_cast<size_t>(weights.m * steps * 4));
  size_t at = 0;
  int64_t m_end = 0;
  for (int64_t m0 = 0; m0 < weights.m; m0 = m_end) {
    m_end = m0 + *std::find_if(heights.begin(), heights.end(),
                               [&](int64_t height) { return height <= weights.m - m0; });
    for (int64_t k0 = 0; k0 < steps * group; k0 += group) {
      for (int64_t m = m0; m < m_end; ++m) {
        for (int64_t k = k0; k < k0 + group; ++k, at += static_cast<size_t>(4 / group)) {
          if (k >= weights.k) continue;
          const int8_t w = weights.values[static_cast<size_t>(m * weights.k + k)];
          packed[at] = w;
          if (group == 2) packed[at + 1] = w < 0 ? int8_t{-1} : int8_t{0};  // the sign, as int16
        }
      }
    }
  }
  return packed;
}

}  // namespace pared
