// Zeroes the weights of least magnitude, or of least magnitude times input.
//
// Before:  y = Conv(x, w)        After:  y = Conv(x, w')
// w' = w where its importance (or the root mean square of its block's) is among the largest
// 1 - sparsity, else 0.
//
// Exactly round(sparsity * units) units are zeroed, among equals the first; but one stays. A weight
// shared by several nodes is pruned once, as its first node sees it. Declines, with a report:
// weights that are computed, quantized or stored sparse; excluded nodes; depthwise convolutions
// unless asked; and, under scope "model", the first and the last layer unless asked.
//
// Where calibration data is given, the weights that stay and the biases are then fitted to the
// original outputs of their layer (prune_layers.h); zeros stay zeros.

#include "passes/prune_layers.h"

namespace pared {
namespace {

struct Options {
  PruneOptions prune;
  PruneMethod method;
};

void Fields(FieldVisitor& f, Options& o) {
  PruneFields(f, o.prune);
  f.Choice(
      "importance", o.prune.importance, {"magnitude", "wanda"},
      "What weights are ranked by. wanda: magnitude times the norm of the weight's input on the "
      "calibration data.");
  f.Choice("reconstruct", o.method.rebuild, {"auto", "on", "bias", "off"},
           "Fit the weights that stay, and the biases, to the original outputs of each layer by "
           "least squares on the calibration data: where there is any, or always; or only fit the "
           "biases; or nothing.");
  RebuildFields(f, o.method);
}

Model Prune(Model model, const Options& options, PassContext& context) {
  return PruneLayers(std::move(model), options.prune, options.method, context);
}

bool NeedsCalibration(const Json& options) {
  return options.at("reconstruct") == "on" || options.at("scope") == "sensitivity" ||
         options.at("importance") == "wanda";
}

}  // namespace

extern const PassInfo kMagnitudePrune = DefinePass<Options, Prune>(
    "magnitude_prune", "Zeroes the weights of least magnitude.", NeedsCalibration, 15);

}  // namespace pared
