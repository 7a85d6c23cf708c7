// Ops that sample an image at computed places: GridSample, AffineGrid, RoiAlign.

#pragma once

#include "evaluator/ops.h"

namespace pared {

Op PrepareGridSample(const Node& node, const OpContext& context);
Op PrepareAffineGrid(const Node& node, const OpContext& context);
Op PrepareRoiAlign(const Node& node, const OpContext& context);

}  // namespace pared
