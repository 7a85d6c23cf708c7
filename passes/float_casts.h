// Constants that a Cast makes floats of, stored as these.
//
// Before:  t = Transpose(w)  v = Cast<float>(t)  y = MatMul(x, v)     w: double or integers
// After:   y = MatMul(x, v)                                           v: an initializer
//
// In subgraphs too. Casts of one constant are stored once, in its graph. Declines where the Cast
// makes an output of its graph, reads what a caller may override, or what is no constant seen
// through Identity, Cast, Transpose, Reshape, Flatten, Squeeze and Unsqueeze.

#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Which Casts: those from 32 bits and more, whose results are no larger; or those from fewer too.
enum class CastSources { kWide, kAll };

struct FloatCasts {
  Json folded = Json::array();  // [{"node"}, ...]: the Casts that are gone
  // The constants of the main graph that had fewer bits, by the names of what they have become.
  std::map<std::string, Tensor> smaller;
};

// Whether the model has a Cast that could be one.
bool MayHaveFloatCasts(const Model& model);

// Large results go to `spill`, as Spilled has it.
FloatCasts FoldFloatCasts(Model& model, CastSources sources, const std::filesystem::path& spill);

}  // namespace pared
