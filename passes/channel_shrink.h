// Takes channels out of a model: weights, biases, sizes and shapes lose what is theirs.

#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <vector>

#include "passes/channel_groups.h"

namespace pared {

// Without the slices of `removed` groups along `axis`, of which slice i belongs to channels[i].
Tensor WithoutSlices(const Tensor& tensor, const ChannelCut& cut, const std::set<int64_t>& removed);

// The outputs of the model are as before only where no reader's weight counts the removed channels.
// `spill`: where the shorter constants go, as Spilled has it.
void ShrinkChannels(Model& model, const std::set<int64_t>& removed,
                    const std::filesystem::path& spill = {});

}  // namespace pared
