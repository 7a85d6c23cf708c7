#include "passes/finite_weights.h"

#include <set>

#include "passes/weights.h"

namespace pared {

void CheckFiniteWeights(const Model& model) {
  const WeightScan scan = FindWeights(model);
  std::set<ConstantRef> seen;
  for (const WeightSite& site : scan.sites) {
    if (seen.insert(site.root).second) {
      CheckFinite(site.stored, site.root.second);
      site.stored.DropPages();
    }
    if (site.node->inputs.size() < 3) continue;
    const Initializer* bias = site.graph->initializers.find(site.node->inputs[2]);
    if (bias != nullptr) CheckFinite(bias->tensor, site.node->inputs[2]);
  }
}

}  // namespace pared
