// How far the calibration samples can be trusted: the damping of a layer's least squares, or of its
// second-order rounding.
//
// With fewer samples than inputs there are weights that fit every sample and nothing else. Half of
// the samples are fitted with each damping, the other half tells which fitted best.

#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "passes/layer_statistics.h"
#include "passes/least_squares.h"

namespace pared {

struct DampingChoice {
  double damping = 0.01;
  bool is_fitted = true;    // false: the weights that stay are best left as they are
  bool shifts_bias = true;  // false: the bias too
};

// Squared error on `held`, where the bias takes up the mean difference seen on `fitted` (null: it
// stays as it was).
double HeldOutError(const LayerStatistics& held, const LayerStatistics* fitted,
                    const std::vector<float>& weight);

// Every second sample, and the others.
struct Halves {
  LayerStatistics fitted, held;
};
struct SplitStatistics {
  std::optional<LayerStatistics> all;  // nullopt: there are none
  std::optional<Halves> halves;        // of `all`; nullopt: one of them would be empty
};
using TakeStatisticsOf =
    std::function<std::optional<LayerStatistics>(const StatisticsRequest& request)>;
// By `take`, where that is given.
SplitStatistics TakeSplit(const LayerStream& stream, const StatisticsRequest& request,
                          const TakeStatisticsOf& take = nullptr);

// For the group's weights with `zero` elements at 0, by some of its rows.
DampingChoice ChooseDamping(const LayerStatistics& fitted, const LayerStatistics& held,
                            const std::vector<float>& original, const std::vector<bool>& zero);

// No fit: each weight to its nearest code.
constexpr double kNearest = std::numeric_limits<double>::infinity();

// Weights of `rows` of the group, decoded from their codes for the samples of `fitted`, which has
// these rows only. nullopt: with this damping there are none.
using RoundRows = std::function<std::optional<std::vector<float>>(
    const LayerStatistics& fitted, const std::vector<int64_t>& rows, double damping)>;

// The damping of the rounding, or kNearest. By some of the group's rows.
double ChooseRounding(const Halves& halves, const RoundRows& round);

// Whether the bias comes nearer to held-out samples where it takes up the mean difference of the
// others, in both directions together: with few samples one half alone may mislead.
bool BiasHelps(const Halves& halves, const std::vector<float>& masked);

}  // namespace pared
