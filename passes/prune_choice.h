// Which weights a pruning pass prunes, how far, and which zeros their magnitudes choose.

#pragma once

#include <string>
#include <vector>

#include "passes/layer_losses.h"
#include "passes/pass.h"
#include "passes/prune_pattern.h"

namespace pared {

enum class PruneScope { kLayer, kModel, kSensitivity };

struct LayerOverride {
  std::string match;
  double sparsity = 0.5;
  PatternName pattern = PatternName::kUnstructured;
};

struct PruneOptions {
  double sparsity = 0.5;
  PruneScope scope = PruneScope::kLayer;
  PatternName pattern = PatternName::kUnstructured;
  std::vector<LayerOverride> overrides;
  std::vector<std::string> exclude;
  double keep_min = 0.05;
  bool ends = false;
  bool depthwise = false;
  bool freeze_inputs = false;
  Budget budget = Budget::kWeights;
  Importance importance = Importance::kMagnitude;
  bool is_fitted = false;  // the weights that stay are fitted afterwards; no option of its own
};

void Fields(FieldVisitor& f, LayerOverride& o);
void PruneFields(FieldVisitor& f, PruneOptions& o);

// Whether calibration data is needed to choose the zeros.
bool ChoosesByData(const PruneOptions& options);

// One weight, with the elements of `stored` that become zero: the least important, exactly as many
// as the options say.
struct LayerChoice {
  const WeightSite* site = nullptr;
  PatternName pattern = PatternName::kUnstructured;
  std::vector<bool> zero;
};

// In node order. Reports skipped nodes at context.report["skipped"]. Throws kCancelled, and
// kInvalidArgument for weights that are not finite and where there is no calibration data to choose
// by.
std::vector<LayerChoice> ChooseZeros(const Model& model, const WeightScan& scan,
                                     const PruneOptions& options, PassContext& context);

}  // namespace pared
