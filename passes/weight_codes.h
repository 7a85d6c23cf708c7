// Weights as small integers with scales, for storage: computed on a tensor as it lies, one at a
// time.

#pragma once

#include <cstdint>
#include <optional>

#include "model/tensor.h"
#include "passes/weights.h"

namespace pared {

// real = scale * code. Zeros have code zero.
struct WeightCodes {
  Tensor codes;   // int8 or int4, of the weight's shape
  Tensor scales;  // float32
};

// int8, -code_max to code_max; one scale along `axis`, or one for all where there is none.
WeightCodes CodeChannels(const Tensor& weight, std::optional<int64_t> axis, float code_max = 127);

// int4, -8 to 7; `block_size` elements along `axis` share a scale, the last of an axis perhaps
// fewer. Scales have the weight's shape with `axis` divided. Each is the one of a few candidates
// with the least squared error.
WeightCodes CodeBlocks(const Tensor& weight, int64_t axis, int64_t block_size);

// The axis of site.stored along which output channels lie; nullopt: none does.
std::optional<int64_t> StoredChannelAxis(const WeightSite& site);

}  // namespace pared
