// Pruning, and then what makes up for it on calibration data, layer after layer.
//
// The target of each layer is what it makes in the original model; its input is what the layers
// before, already pruned, give it. So a layer also makes up for those before it. A matrix product
// that is added to a skip connection is to give what that connection has lost, too. Convolutions
// that are not pruned because they are depthwise are rebuilt too. BatchNormalization after a layer
// needs no change: means and scales of its input stay as they were.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "passes/prune_choice.h"

namespace pared {

enum class Rebuild { kAuto, kOn, kBias, kOff };

struct PruneMethod {
  Rebuild rebuild = Rebuild::kAuto;
  bool is_second_order = false;
  double damping = 0;  // 0: each layer's own
};

void RebuildFields(FieldVisitor& f, PruneMethod& method);

// The zeros are those that `choose` gives, in node order.
struct PruneRequest {
  std::function<std::vector<LayerChoice>(const Model&, const WeightScan&)> choose;
  std::vector<std::string> exclude;
};
Model PruneChosen(const Model& model, const PruneRequest& request, const PruneMethod& method,
                  PassContext& context);

// Where data fit them, weights stored in half precision are pruned in float32 and rounded back.
Model PruneLayers(Model model, const PruneOptions& options, const PruneMethod& method,
                  PassContext& context);

}  // namespace pared
