// The depthwise kernel that reads the padded image directly.

#pragma once

#include <memory>

#include "kernels/depthwise.h"

namespace pared {

// Needs AVX512 VNNI and VBMI. Null: not for this geometry or output.
std::unique_ptr<PackedDepthwise> PackDirectDepthwise(const DepthwiseWeights& weights, Isa isa);

}  // namespace pared
