// Zeroes the weights whose loss costs the layer's output least, and lets the others make up for it.
//
// Before:  y = Conv(x, w, b)        After:  y = Conv(x, w', b')
// w' has as many zeros as magnitude_prune would make, chosen together with the weights that stay by
// the second moments of x (find_zeros.cc), then fitted by least squares (prune_layers.h).
//
// A layer for which that is not possible is pruned by magnitude, and the report says why:
// "not_reconstructed" or "fallback". Declines what magnitude_prune declines.

#include "passes/prune_layers.h"

namespace pared {
namespace {

struct Options {
  PruneOptions prune;
  PruneMethod method{.rebuild = Rebuild::kOn, .is_second_order = true};
};

void Fields(FieldVisitor& f, Options& o) {
  PruneFields(f, o.prune);
  RebuildFields(f, o.method);
}

Model Prune(Model model, const Options& options, PassContext& context) {
  return PruneLayers(std::move(model), options.prune, options.method, context);
}

}  // namespace

extern const PassInfo kSecondOrderPrune = DefinePass<Options, Prune>(
    "second_order_prune", "Zeroes the weights whose loss the others can best make up for.",
    [](const Json&) { return true; }, 15);

}  // namespace pared
