#include "passes/second_order_round.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>

#include "passes/matrix_product.h"
#include "passes/upper_factor.h"

namespace pared {
namespace {

// Columns at a time: the rest of the work is matrix products, which the kernels do at their best.
constexpr int64_t kBlock = 128;
constexpr int kDampingTries = 6;

class Rounder {
 public:
  Rounder(const RoundingProblem& problem, const std::vector<float>& upper)
      : problem_(problem),
        upper_(upper),
        k_(problem.statistics->k),
        rows_(problem.statistics->rows),
        errors_(problem.wanted->size(), 0.0f),
        codes_(problem.wanted->size(), 0) {}

  std::vector<int8_t> Run() {
    for (int64_t begin = 0; begin < k_; begin += kBlock) {
      const int64_t size = std::min(kBlock, k_ - begin);
      std::vector<float> carried(static_cast<size_t>(rows_ * size), 0.0f);
      if (begin > 0) {
        carried = Multiply({rows_, size, begin}, BlockOf(errors_, k_, 0, rows_, 0, begin),
                           BlockOf(upper_, k_, 0, begin, begin, size));
      }
      tbb::parallel_for(int64_t{0}, rows_,
                        [&](int64_t row) { RoundRow(row, begin, size, carried); });
    }
    return std::move(codes_);
  }

 private:
  void RoundRow(int64_t row, int64_t begin, int64_t size, std::vector<float>& carried) {
    const float scale = (*problem_.scales)[static_cast<size_t>(row)];
    const float most = static_cast<float>(problem_.code_max);
    float* const sums = carried.data() + row * size;
    for (int64_t j = 0; j < size; ++j) {
      const int64_t at = begin + j;
      const size_t element = static_cast<size_t>(row * k_ + at);
      const float* const factors = upper_.data() + at * k_ + begin;
      const float wanted = (*problem_.wanted)[element];
      float code = 0;
      if (wanted != 0) {
        const float target = wanted - sums[j] / factors[j];
        code = std::clamp(std::nearbyint(target / scale), -most, most);
      }
      codes_[element] = static_cast<int8_t>(code);
      const float error = code * scale - wanted;
      errors_[element] = error;
      for (int64_t i = j; i < size; ++i) sums[i] += error * factors[i];
    }
  }

  const RoundingProblem& problem_;
  const std::vector<float>& upper_;
  int64_t k_, rows_;
  std::vector<float> errors_;  // (q - w) [rows][k]
  std::vector<int8_t> codes_;
};

}  // namespace

std::optional<std::vector<int8_t>> RoundSecondOrder(const RoundingProblem& problem) {
  double damping = problem.damping;
  for (int tried = 0; tried < kDampingTries; ++tried, damping *= 10) {
    const std::vector<float> upper = UpperFactor(*problem.statistics, damping);
    if (!upper.empty()) return Rounder(problem, upper).Run();
  }
  return std::nullopt;
}

}  // namespace pared
