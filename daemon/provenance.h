// What a model file itself says of how it was made, in its metadata (metadata_props):
//
//   pared.version  0.1.0
//   pared.passes   [{"pass":"fold_batch_norm","version":4},{"pass":"quantize_int8",...}]
//
// the passes that changed it, in order, each with its version and the options that differ from
// their defaults; those of earlier chains stand before. A model that nothing changed says nothing.

#pragma once

#include "model/graph.h"
#include "passes/pass.h"

namespace pared {

// Adds `step`. An entry "pared.passes" that is no JSON array, and so not pared's, is replaced.
void RecordProvenance(const Step& step, Model& model);

}  // namespace pared
