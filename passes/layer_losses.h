// What pruning costs each layer, and with it the model's outputs, from one walk over the
// calibration data.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "passes/allocate_sparsity.h"
#include "passes/left_out.h"
#include "passes/pass.h"
#include "passes/prune_pattern.h"

namespace pared {

enum class Importance { kMagnitude, kWanda };
enum class Budget { kWeights, kMacs, kLatency };

struct LossRequest {
  Importance importance = Importance::kMagnitude;
  bool with_points = false;  // false: importance alone
  bool is_fitted = true;     // the weights that stay will be fitted
  Budget budget = Budget::kWeights;
  double sparsity_max = 0.95;
};

struct LayerLoss {
  const WeightSite* site = nullptr;
  Pattern pattern;
  // For PruneUnits: empty for the weights themselves. Wanda: |w| times the norm of its input (Sun
  // et al., A simple and effective pruning approach for large language models, 2023).
  std::vector<float> importance;
  // Loss: noise by signal of the worst output. It is that of the layer's own outputs on held-out
  // samples, times the gain from the layer to the outputs: that of a light pruning of it alone.
  std::vector<SparsityPoint> points;
  double size = 0;      // what all of it costs, in the budget's unit
  LeftOut left_out;     // of its inputs
  std::string why_not;  // why there are neither points nor importance by inputs
};

// Fills `layers`, of which site and pattern are given, in node order. Throws kCancelled.
void MeasureLosses(const Model& model, const LossRequest& request, PassContext& context,
                   std::vector<LayerLoss>& layers);

// Marks the `sparsity` share of the site's units that matters least (of the stored elements).
std::vector<bool> LeastUnits(const WeightSite& site, Pattern pattern,
                             const std::vector<float>& importance, double sparsity);

}  // namespace pared
