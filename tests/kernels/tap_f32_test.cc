// Padded rows, and sums and maxima over the taps of a window.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/f32.h"

namespace pared {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class TapF32 : public ::testing::TestWithParam<Isa> {
 protected:
  const F32Kernels& kernels_ = F32KernelsFor(GetParam());

  // Three rows of `count`, padded to `width` columns.
  void CheckPadding(int64_t count, int64_t pad, int64_t stride, int64_t width) const {
    SCOPED_TRACE(std::to_string(count) + " padded by " + std::to_string(pad) + " to " +
                 std::to_string(width) + " stride " + std::to_string(stride));
    std::vector<float> x(static_cast<size_t>(3 * count));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
    const int64_t phase_floats = (width + stride - 1) / stride;
    const int64_t row_floats = phase_floats * stride;
    std::vector<float> y(static_cast<size_t>(3 * row_floats + kernels_.lanes), NAN);
    kernels_.pad_rows({.x = x.data(),
                       .count = count,
                       .pad = pad,
                       .stride = stride,
                       .y = y.data(),
                       .phase_floats = phase_floats,
                       .padding = -kInfinity,
                       .rows = 3,
                       .y_step = row_floats});
    for (int64_t i = 0; i < 3 * row_floats; ++i) {
      const int64_t column = i % row_floats;
      const int64_t from = column % phase_floats * stride + column / phase_floats - pad;
      const bool inside = from >= 0 && from < count;
      const int64_t at = i / row_floats * count + from;
      ASSERT_EQ(y[static_cast<size_t>(i)], inside ? x[static_cast<size_t>(at)] : -kInfinity) << i;
    }
  }
};

TEST_P(TapF32, RowsArePaddedAndSorted) {
  for (int64_t count = 1; count < 36; ++count) {
    for (int64_t stride = 1; stride < 4; ++stride) {
      CheckPadding(count, 0, stride, count);
      CheckPadding(count, 1, stride, count + 2);
      CheckPadding(count, 3, stride, count + 3);
      CheckPadding(count, 20, stride, count + 41);
    }
  }
}

TEST_P(TapF32, PaddingMayBeAllThatIsRead) { CheckPadding(2, 9, 2, 5); }

TEST_P(TapF32, SumsAndMaximaOfAnyExtent) {
  const std::vector<int64_t> offsets = {0, 1, 2, 90, 91, 92};
  const std::vector<float> weights = {1, -2, 3, -4, 5, -6};
  std::vector<float> x(90 * 40 + kTapSlack);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 37 % 101) - 50;
  for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 13, 15}) {
    for (const int64_t count : {1, 7, 8, 9, 15, 16, 17, 31, 33, 40, 64, 65, 79}) {
      std::vector<float> sums(static_cast<size_t>(rows * count), NAN), maxima = sums;
      TapRowsF32 taps{.source = x.data(),
                      .source_step = 180,
                      .offsets = offsets.data(),
                      .weights = weights.data(),
                      .taps = 6,
                      .bias = 7,
                      .low = -300,
                      .high = 400,
                      .y = sums.data(),
                      .y_step = count,
                      .rows = rows,
                      .count = count};
      kernels_.tap_sum_rows(taps);
      taps.y = maxima.data();
      kernels_.tap_max_rows(taps);
      for (int64_t i = 0; i < rows * count; ++i) {
        float sum = 7, most = -kInfinity;
        for (size_t t = 0; t < 6; ++t) {
          const float value = x[static_cast<size_t>(i / count * 180 + i % count + offsets[t])];
          sum += weights[t] * value;
          most = std::max(most, value);
        }
        ASSERT_EQ(sums[static_cast<size_t>(i)], std::clamp(sum, -300.0F, 400.0F)) << rows << count;
        ASSERT_EQ(maxima[static_cast<size_t>(i)], most) << rows << " x " << count;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, TapF32, ::testing::ValuesIn(AvailableIsas()),
                         [](const auto& test) { return std::string(IsaName(test.param)); });

}  // namespace
}  // namespace pared
