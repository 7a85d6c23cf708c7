// Rounds the weights of layers one after the other, each so that its output on the calibration data
// stays nearest to that of the float model.

#pragma once

#include <map>
#include <vector>

#include "passes/block_codes.h"
#include "passes/pass.h"
#include "passes/weights.h"

namespace pared {

using RoundedLayers = std::map<ConstantRef, BlockMatrix>;

struct LayerRounding {
  BlockForm form;
  double damping = 0;  // of the second order; 0: held-out samples choose it
};

// `sites`: of the main graph of `model`, in node order, without one for which WhyNoStatistics has a
// reason. A layer is missing where the second order gives no less error than rounding to nearest.
// Adds "rounded": [{"node", "output_sqnr_db_nearest", "output_sqnr_db", "damping"}, ...] to the
// report; damping null: the nearest codes stay.
RoundedLayers RoundLayers(const Model& model, const std::vector<const WeightSite*>& sites,
                          const LayerRounding& rounding, PassContext& context);

}  // namespace pared
