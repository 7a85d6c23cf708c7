// A model in the form that TensorFlow Lite files are written from.

#pragma once

#include <cstdint>
#include <filesystem>

#include "model/graph.h"

namespace pared {

// Functions are inlined, float32 is computed where halves are (what is stored as halves stays so,
// behind a Cast), and GELU, HardSwish and dynamically quantized products that are spelled out are
// one node, as TensorFlow Lite has operators for them. Large tensors that are widened go to `spill`
// where it is not empty.
Model TfliteForm(Model model, const std::filesystem::path& spill);

// Products of the main graph that read codes and make floats, which TensorFlow Lite computes in
// float: it has none between the two.
int64_t CountFloatResults(const Graph& graph);

}  // namespace pared
