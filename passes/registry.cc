#include "passes/registry.h"

#include <algorithm>

namespace pared {

extern const PassInfo kCastFp16;
extern const PassInfo kChannelPrune;
extern const PassInfo kFoldBatchNorm;
extern const PassInfo kMagnitudePrune;
extern const PassInfo kQuantizeDynamic;
extern const PassInfo kQuantizeInt8;
extern const PassInfo kQuantizeWeights;
extern const PassInfo kSecondOrderPrune;

namespace {

// The table of contents: one line a pass, in the order the documentation lists them.
const PassInfo* const kPasses[] = {
    &kFoldBatchNorm, &kMagnitudePrune,  &kSecondOrderPrune, &kChannelPrune,
    &kQuantizeInt8,  &kQuantizeDynamic, &kQuantizeWeights,  &kCastFp16,
};

}  // namespace

std::span<const PassInfo* const> Passes() { return kPasses; }

const PassInfo* FindPass(std::string_view name) {
  const auto found =
      std::ranges::find_if(kPasses, [&](const PassInfo* pass) { return pass->name == name; });
  return found == std::end(kPasses) ? nullptr : *found;
}

}  // namespace pared
