// A pass's loop over layers, told as it goes.

#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "passes/pass.h"

namespace pared {

// Where the loop's place stands in the pass's report while it runs: {"layer", "layer_index",
// "layer_count"}. Whoever runs the pass takes it out at the end.
constexpr const char* kAtLayer = "at_layer";

// The loop comes to its index-th layer of count, counted from 1; the next progress is told with it.
inline void SetLayer(PassContext& context, std::string layer, size_t index, size_t count) {
  context.report[kAtLayer] = {
      {"layer", std::move(layer)}, {"layer_index", index}, {"layer_count", count}};
}

// The same of a loop that is the whole pass.
inline void TellLayer(PassContext& context, std::string layer, size_t index, size_t count) {
  SetLayer(context, std::move(layer), index, count);
  context.progress(static_cast<double>(index - 1) / static_cast<double>(count));
}

}  // namespace pared
