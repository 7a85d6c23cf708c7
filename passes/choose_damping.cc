#include "passes/choose_damping.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace pared {
namespace {

const std::vector<double> kDampings = {0.01, 0.1, 1, 10};
const std::vector<double> kRoundingDampings = {0.01, 0.1, 1};
constexpr double kNearly = 1.01;
constexpr double kClearly = 0.7;
// More damping must do so much better: what all samples fit needs less than what half of them do.
constexpr double kStronger = 0.9;
constexpr int64_t kRowsMax = 16;  // rows are independent: some of them tell for all

}  // namespace

SplitStatistics TakeSplit(const LayerStream& stream, const StatisticsRequest& request,
                          const TakeStatisticsOf& take) {
  const auto statistics_of = [&](const StatisticsRequest& part) {
    return take ? take(part) : TakeStatistics(stream, part);
  };
  if (stream.sample_count() < 2) return {statistics_of(request), {}};
  StatisticsRequest even = request, odd = request;
  even.folds = odd.folds = 2;
  odd.fold = 1;
  std::optional<LayerStatistics> fitted = statistics_of(even), held = statistics_of(odd);
  if (!fitted || !held) return {statistics_of(request), {}};
  LayerStatistics all = Merge(*fitted, *held);
  if (fitted->count == 0 || held->count == 0) return {std::move(all), {}};
  return {std::move(all), Halves{std::move(*fitted), std::move(*held)}};
}

double HeldOutError(const LayerStatistics& held, const LayerStatistics* fitted,
                    const std::vector<float>& weight) {
  double error = SquaredErrorOf(held, weight);
  for (int64_t row = 0; row < held.rows; ++row) {
    const auto mean_error = [&](const LayerStatistics& s) {
      double mean = s.y_mean[static_cast<size_t>(row)];
      for (int64_t k = 0; k < s.k; ++k) {
        mean -= weight[static_cast<size_t>(row * s.k + k)] * s.x_mean[static_cast<size_t>(k)];
      }
      return mean;
    };
    const double shift = mean_error(held) - (fitted == nullptr ? 0 : mean_error(*fitted));
    error += static_cast<double>(held.count) * shift * shift;
  }
  return error;
}

DampingChoice ChooseDamping(const LayerStatistics& fitted, const LayerStatistics& held,
                            const std::vector<float>& original, const std::vector<bool>& zero) {
  if (fitted.rows > kRowsMax) {
    const std::vector<int64_t> rows = SpreadRows(fitted.rows, kRowsMax);
    return ChooseDamping(RowsOf(fitted, rows), RowsOf(held, rows), RowsOf(original, fitted.k, rows),
                         RowsOf(zero, fitted.k, rows));
  }
  std::vector<float> masked = original;
  for (size_t i = 0; i < masked.size(); ++i) {
    if (zero[i]) masked[i] = 0;
  }
  const double plain = HeldOutError(held, nullptr, masked);
  double least = HeldOutError(held, &fitted, masked);
  DampingChoice best{.damping = kDampings[0], .is_fitted = false, .shifts_bias = least < plain};
  least = std::min(least, plain);
  const std::vector<std::vector<float>> weights =
      SolveDampings({&fitted, &original}, kDampings, zero, masked);
  std::vector<double> errors;
  for (const auto& weight : weights) errors.push_back(HeldOutError(held, &fitted, weight));
  const double least_fitted = std::ranges::min(errors);
  if (least_fitted >= least) return best;
  // Between dampings that do nearly as well, the one that stays nearer to the original weights.
  for (size_t i = 0; i < errors.size(); ++i) {
    if (errors[i] <= kNearly * least_fitted && errors[i] < least) best = {.damping = kDampings[i]};
  }
  return best;
}

double ChooseRounding(const Halves& halves, const RoundRows& round) {
  const std::vector<int64_t> rows = SpreadRows(halves.fitted.rows, kRowsMax);
  const LayerStatistics fitted = RowsOf(halves.fitted, rows), held = RowsOf(halves.held, rows);
  const auto error_of = [&](double damping) {
    const auto weight = round(fitted, rows, damping);
    return weight ? HeldOutError(held, &fitted, *weight) : std::numeric_limits<double>::infinity();
  };
  const double nearest = error_of(kNearest);
  // Few columns tell by chance, too.
  const double noticeable =
      1 - 1 / std::sqrt(static_cast<double>(std::max<int64_t>(1, held.count)));
  double best = kNearest, least = noticeable * nearest;
  for (const double damping : kRoundingDampings) {
    const double error = error_of(damping);
    if (error < (best == kNearest ? least : kStronger * least)) {
      best = damping;
      least = error;
    }
    if (error < kClearly * nearest) break;  // each costs factors of the Hessian
  }
  return best;
}

bool BiasHelps(const Halves& halves, const std::vector<float>& masked) {
  const auto gain = [&](const LayerStatistics& fitted, const LayerStatistics& held) {
    return HeldOutError(held, nullptr, masked) - HeldOutError(held, &fitted, masked);
  };
  return gain(halves.fitted, halves.held) + gain(halves.held, halves.fitted) > 0;
}

}  // namespace pared
