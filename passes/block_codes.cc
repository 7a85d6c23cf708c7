#include "passes/block_codes.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/block_fit.h"
#include "passes/upper_factor.h"

namespace pared {
namespace {

// A block's range, as a part of its whole: what is cut off saturates and the rest is finer.
constexpr float kShrinks[] = {1, 0.96f, 0.92f, 0.88f, 0.84f, 0.8f, 0.75f, 0.7f};
constexpr int kFits = 2;               // of the scale to the codes, for each range
constexpr double kHopeless = 1.15;     // times the least error so far: a fit is not pursued
constexpr float kLargestMin = 1e-30f;  // below, a block is zero: no subnormal scale
constexpr int kDampingTries = 6;

float CodeMax(int64_t bits) { return static_cast<float>((1 << bits) - 1); }

// Searches one block.
class ScaleSearch {
 public:
  // `values` and `importance`, where it is not empty, in whole lanes; see ChooseBlockScale.
  ScaleSearch(std::span<const float> values, std::span<const float> importance,
              const BlockForm& form, Isa isa)
      : values_(values), importance_(importance), bits_(form.bits), isa_(isa) {}

  BlockScale Run(bool is_symmetric) {
    float low = 0, high = 0;
    for (const float value : values_) {
      low = std::min(low, value);
      high = std::max(high, value);
    }
    const int32_t middle = 1 << (bits_ - 1);
    best_ = {1, middle};
    if (std::max(high, -low) < kLargestMin) return best_;
    const float largest = high > -low ? high : low;
    const float all = CodeMax(bits_);
    for (size_t i = 0; i < values_.size(); ++i) {
      const double value = static_cast<double>(values_[i]);
      energy_ += (importance_.empty() ? 1 : static_cast<double>(importance_[i])) * value * value;
    }
    for (const float shrink : kShrinks) {
      Try({shrink * std::fabs(largest) / (all - static_cast<float>(middle)), middle});
      // One code more: the largest, whatever its sign, has the code 0.
      Try({-shrink * largest / static_cast<float>(middle), middle});
      if (is_symmetric) continue;
      const float scale = shrink * (high - low) / all;
      const float zero = std::clamp(std::nearbyint(-shrink * low / scale), 0.0f, all);
      Try({scale, static_cast<int32_t>(zero)});
    }
    return best_;
  }

 private:
  void Try(BlockScale tried) {
    const float low = static_cast<float>(-tried.zero_point);
    for (int fit = 0; fit <= kFits; ++fit) {
      const BlockSums sums =
          FitBlock({.values = values_.data(),
                    .importance = importance_.empty() ? nullptr : importance_.data(),
                    .count = std::ssize(values_),
                    .scale = tried.scale,
                    .low = low,
                    .high = low + CodeMax(bits_)},
                   isa_);
      if (error_ < 0 || sums.error < error_) {
        error_ = sums.error;
        best_ = tried;
      }
      const float scale = sums.square > 0 ? static_cast<float>(sums.product / sums.square) : 0;
      // Where the codes stayed, so does the scale that fits them.
      if (!(std::fabs(scale) > kLargestMin) || scale == tried.scale) return;
      // The error of these codes with that scale; new codes gain little more.
      const double fitted = energy_ - sums.product * sums.product / sums.square;
      if (fitted > kHopeless * error_) return;
      tried.scale = scale;
    }
  }

  std::span<const float> values_, importance_;
  int64_t bits_;
  Isa isa_;
  BlockScale best_;
  double error_ = -1, energy_ = 0;
};

// Zeros up to whole lanes: they change no range and no sum.
void FillLanes(std::vector<float>& values) {
  constexpr size_t kLanes = static_cast<size_t>(kBlockLanes);
  values.resize((values.size() + kLanes - 1) / kLanes * kLanes, 0);
}

// Rounds the columns of each row by itself.
class ColumnRounder {
 public:
  // `upper`: U with (h + lambda)^-1 = U^T U.
  ColumnRounder(const LeastSquares& problem, const std::vector<float>& upper, const BlockForm& form)
      : k_(problem.statistics->k), original_(*problem.original), upper_(upper), form_(form) {
    // What an error in a column costs after the later ones made up for it.
    for (int64_t k = 0; k < k_; ++k) {
      const float diagonal = upper[static_cast<size_t>(k * k_ + k)];
      cost_.push_back(1 / (diagonal * diagonal));
    }
    made_ = {form, problem.statistics->rows, k_, std::vector<uint8_t>(original_.size()), {}};
    made_.scales.resize(static_cast<size_t>(made_.rows * made_.blocks()));
  }

  BlockMatrix Run() {
    tbb::parallel_for(int64_t{0}, made_.rows, [&](int64_t row) { RoundRow(row); });
    return std::move(made_);
  }

 private:
  void RoundRow(int64_t row) {
    const size_t first = static_cast<size_t>(row * k_);
    std::vector<double> w(original_.begin() + static_cast<std::ptrdiff_t>(first),
                          original_.begin() + static_cast<std::ptrdiff_t>(first) + k_);
    for (int64_t k = 0; k < k_; ++k) {
      BlockScale& scale =
          made_.scales[static_cast<size_t>(row * made_.blocks() + k / form_.block_size)];
      if (k % form_.block_size == 0) scale = ScaleOfBlock(w, first, k);
      const size_t at = static_cast<size_t>(k);
      const bool is_pruned = original_[first + at] == 0;
      const int32_t code =
          is_pruned ? scale.zero_point : scale.CodeOf(static_cast<float>(w[at]), form_.bits);
      made_.codes[first + at] = static_cast<uint8_t>(code);
      const float* upper = &upper_[at * static_cast<size_t>(k_)];
      const double error = (w[at] - static_cast<double>(scale.ValueOf(code))) / upper[at];
      for (size_t rest = at; rest < w.size(); ++rest) w[rest] -= error * upper[rest];
    }
  }

  // Pruned weights are no part of the range.
  BlockScale ScaleOfBlock(const std::vector<double>& w, size_t first, int64_t begin) const {
    std::vector<float> values, cost;
    const int64_t end = std::min(begin + form_.block_size, k_);
    for (int64_t k = begin; k < end; ++k) {
      const size_t at = static_cast<size_t>(k);
      values.push_back(original_[first + at] == 0 ? 0 : static_cast<float>(w[at]));
      cost.push_back(cost_[at]);
    }
    return ChooseBlockScale(std::move(values), std::move(cost), form_);
  }

  int64_t k_;
  const std::vector<float>& original_;
  const std::vector<float>& upper_;
  const BlockForm& form_;
  std::vector<float> cost_;
  BlockMatrix made_;
};

}  // namespace

int32_t BlockScale::CodeOf(float value, int64_t bits) const {
  const float code = std::nearbyint(value / scale) + static_cast<float>(zero_point);
  return static_cast<int32_t>(std::clamp(code, 0.0f, CodeMax(bits)));
}

BlockScale ChooseBlockScale(std::vector<float> values, std::vector<float> importance,
                            const BlockForm& form) {
  FillLanes(values);
  FillLanes(importance);
  return ScaleSearch(values, importance, form, SelectedIsa()).Run(form.is_symmetric);
}

std::vector<float> BlockMatrix::Decoded() const {
  std::vector<float> values;
  values.reserve(codes.size());
  for (int64_t at = 0; at < rows * k; ++at) {
    const BlockScale& scale =
        scales[static_cast<size_t>(at / k * blocks() + at % k / form.block_size)];
    values.push_back(scale.ValueOf(codes[static_cast<size_t>(at)]));
  }
  return values;
}

BlockMatrix RoundToNearest(const AxisRows& weight, const BlockForm& form) {
  const int64_t k = weight.k_count;
  BlockMatrix made{form, weight.rows(), k, std::vector<uint8_t>(weight.values.size()), {}};
  made.scales.resize(static_cast<size_t>(made.rows * made.blocks()));
  tbb::parallel_for(int64_t{0}, made.rows, [&](int64_t row) {
    std::vector<float> block;
    for (int64_t begin = 0; begin < k; begin += form.block_size) {
      block.clear();
      for (int64_t i = begin; i < std::min(begin + form.block_size, k); ++i) {
        block.push_back(weight.values[static_cast<size_t>(weight.Index(row, i))]);
      }
      const BlockScale scale = ChooseBlockScale(block, {}, form);
      made.scales[static_cast<size_t>(row * made.blocks() + begin / form.block_size)] = scale;
      for (size_t i = 0; i < block.size(); ++i) {
        made.codes[static_cast<size_t>(row * k + begin) + i] =
            static_cast<uint8_t>(scale.CodeOf(block[i], form.bits));
      }
    }
  });
  return made;
}

std::optional<BlockMatrix> RoundSecondOrder(const LeastSquares& problem, const BlockForm& form) {
  double damping = problem.damping;
  for (int tried = 0; tried < kDampingTries; ++tried, damping *= 10) {
    const std::vector<float> factor = UpperFactor(*problem.statistics, damping);
    if (factor.empty()) continue;
    const std::vector<float> upper = InverseOfUpper(factor, problem.statistics->k);
    return ColumnRounder(problem, upper, form).Run();
  }
  return std::nullopt;
}

}  // namespace pared
