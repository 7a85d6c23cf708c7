// Random tensors from a seed that a failing test can be repeated with: PARED_TEST_SEED=7.

#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "model/tensor.h"

namespace pared {

class Random {
 public:
  // `seed` holds where PARED_TEST_SEED is not set. A failing test's report has it.
  explicit Random(uint64_t seed = 1) : seed_(FromEnvironment(seed)), engine_(seed_) {
    ::testing::Test::RecordProperty("seed", std::to_string(seed_));
    std::printf("[   seed   ] PARED_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed_));
  }

  std::mt19937_64& engine() { return engine_; }
  // Within [min, max].
  int64_t Integer(int64_t min, int64_t max) {
    return std::uniform_int_distribution<int64_t>(min, max)(engine_);
  }
  double Real(double min, double max) {
    return std::uniform_real_distribution<double>(min, max)(engine_);
  }
  // Elements uniform within [min, max].
  template <class T>
  Tensor Uniform(Shape shape, double min, double max) {
    std::vector<T> values(static_cast<size_t>(ElementCount(shape)));
    for (auto&& value : values) {
      if constexpr (std::is_floating_point_v<T>) {
        value = static_cast<T>(Real(min, max));
      } else {
        value = static_cast<T>(Integer(static_cast<int64_t>(min), static_cast<int64_t>(max)));
      }
    }
    return Tensor::Make<T>(std::move(shape), std::move(values));
  }
  // Normal with this standard deviation, as trained weights nearly are.
  Tensor Normal(Shape shape, double deviation) {
    std::normal_distribution<double> normal(0, deviation);
    std::vector<float> values(static_cast<size_t>(ElementCount(shape)));
    for (float& value : values) value = static_cast<float>(normal(engine_));
    return Tensor::Make<float>(std::move(shape), std::move(values));
  }

 private:
  static uint64_t FromEnvironment(uint64_t fallback) {
    const char* text = std::getenv("PARED_TEST_SEED");
    return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
  }

  uint64_t seed_;
  std::mt19937_64 engine_;
};

}  // namespace pared
