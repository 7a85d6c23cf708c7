#include "kernels/fixed_sum.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/elementwise_avx512.h"

namespace pared {
namespace {

constexpr int64_t kCodes = 256;
constexpr int64_t kMultiplierMax = 32000;  // of high_a and high_b: an int16, with room to move
constexpr int32_t kShiftMax = 16;
// Float arithmetic can be off by so much of a step of y for each step of y that the terms span.
constexpr double kFloatError = 4.0 / (1 << 24);
// A and B are tried at so many places on both sides, so far apart.
constexpr int64_t kPlaces = 24, kPlaceStep = 3;

struct Multipliers {
  int64_t a, b;
};

// A pair of codes and the y that AddQuantized makes of it.
struct Sample {
  int64_t a, b, y;
};

struct AllPairs {
  AllPairs(const AddParams& params, Isa isa) : a(kCodes * kCodes), b(a.size()), y(a.size()) {
    for (size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<uint8_t>(i / kCodes);
      b[i] = static_cast<uint8_t>(i % kCodes);
    }
    AddQuantized(a, b.data(), params, y.data(), isa);
  }
  bool Agree(const FixedSum& sum) const {
    std::vector<uint8_t> found(a.size());
    AddFixed(a, b.data(), sum, found.data());
    return found == y;
  }
  std::vector<uint8_t> a, b, y;
};

FixedSum Split(Multipliers m, int64_t c, int32_t shift, const AddParams& params) {
  const auto high = [](int64_t v) { return static_cast<int32_t>(v >> 15); };
  const auto low = [](int64_t v) { return static_cast<int32_t>(v & 0x7fff); };
  return {.high_a = high(m.a),
          .high_b = high(m.b),
          .high_c = high(c),
          .low_a = low(m.a),
          .low_b = low(m.b),
          .low_c = low(c),
          .shift = shift,
          .low = params.low,
          .high = params.high};
}

// The pairs whose exact sum is so near to where y steps that rounding in float may decide.
std::vector<Sample> NearSteps(const AllPairs& all, const AddParams& params) {
  const double ratio_a = static_cast<double>(params.a.scale) / params.y.scale;
  const double ratio_b = static_cast<double>(params.b.scale) / params.y.scale;
  const double error = kFloatError * kCodes * (std::abs(ratio_a) + std::abs(ratio_b) + 1);
  std::vector<Sample> near;
  for (size_t i = 0; i < all.a.size(); ++i) {
    const double sum =
        ratio_a * (all.a[i] - params.a.zero_point) + ratio_b * (all.b[i] - params.b.zero_point);
    if (std::abs(sum - std::floor(sum) - 0.5) > error) continue;
    near.push_back({all.a[i], all.b[i], all.y[i]});
  }
  return near;
}

// A c with which all samples come out right: the middle of what they allow.
std::optional<int64_t> OffsetFor(const std::vector<Sample>& samples, Multipliers m, int32_t shift,
                                 const AddParams& params) {
  int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
  for (const Sample& s : samples) {
    const int64_t sum = m.a * s.a + m.b * s.b;
    if (s.y > params.low) least = std::max(least, (s.y << (15 + shift)) - sum);
    if (s.y < params.high) most = std::min(most, ((s.y + 1) << (15 + shift)) - 1 - sum);
    if (least > most) return std::nullopt;
  }
  constexpr int64_t kNone = int64_t{1} << 62;
  if (least < -kNone || most > kNone) return std::nullopt;  // bounded on one side at most
  return least + (most - least) / 2;
}

}  // namespace

void AddFixed(std::span<const uint8_t> a, const uint8_t* b, const FixedSum& sum,
              uint8_t* y) noexcept {
  if constexpr (kOnX86) return AddFixedAvx512Vnni(a, b, sum, y);
  for (size_t i = 0; i < a.size(); ++i) {
    const int32_t low = (sum.low_a * a[i] + sum.low_b * b[i] + sum.low_c) >> 15;
    const int32_t code = (sum.high_a * a[i] + sum.high_b * b[i] + sum.high_c + low) >> sum.shift;
    y[i] = static_cast<uint8_t>(std::clamp(code, sum.low, sum.high));
  }
}

std::optional<FixedSum> FindFixedSum(const AddParams& params, Isa isa) {
  if (!Includes(isa, Isa::kAvx512Vnni) && !IsNeon(isa)) return std::nullopt;
  const double ratio_a = static_cast<double>(params.a.scale) / params.y.scale;
  const double ratio_b = static_cast<double>(params.b.scale) / params.y.scale;
  const double most = std::max(std::abs(ratio_a), std::abs(ratio_b));
  if (!(most > 1e-3 && most < 1e3)) return std::nullopt;
  const auto shift = std::min(
      kShiftMax,
      static_cast<int32_t>(std::floor(std::log2(static_cast<double>(kMultiplierMax) / most))));
  const double unit = std::ldexp(1.0, 15 + shift);
  const Multipliers exact{std::llround(ratio_a * unit), std::llround(ratio_b * unit)};
  const AllPairs all(params, isa);
  const double offset =
      params.y.zero_point + 0.5 - ratio_a * params.a.zero_point - ratio_b * params.b.zero_point;
  const FixedSum plain = Split(exact, std::llround(offset * unit), shift, params);
  if (all.Agree(plain)) return plain;
  const std::vector<Sample> near = NearSteps(all, params);
  for (int64_t i = -kPlaces; i <= kPlaces; ++i) {
    for (int64_t j = -kPlaces; j <= kPlaces; ++j) {
      const Multipliers moved{exact.a + i * kPlaceStep, exact.b + j * kPlaceStep};
      const std::optional<int64_t> c = OffsetFor(near, moved, shift, params);
      if (!c) continue;
      const FixedSum sum = Split(moved, *c, shift, params);
      if (all.Agree(sum)) return sum;
    }
  }
  return std::nullopt;
}

}  // namespace pared
