// INT8 within the branches of If.
//
// A branch is quantized as a model by itself: its inputs are the values that it reads from outside,
// as they are on the calibration samples that take it (those whose shapes are the first one's). Its
// new initializers go to the graph of the If, equal ones of several branches once. Bodies of Loop
// and Scan, whose values differ from one iteration to the next, are left alone.

#pragma once

#include <functional>
#include <optional>

#include "passes/pass.h"

namespace pared {

// `branch` in INT8, with the context's report filled in; nullopt: nothing in it can be.
using QuantizeBranch = std::function<std::optional<Model>(Model branch, PassContext& context)>;

// Quantizes the branches that hold weighted nodes, of those Ifs of the main graph that are not
// excluded. Returns [{"branch", "report"}, ...]; the report has "changed", "skipped" and
// "int8_weight_count" at least.
Json QuantizeBranches(Model& model, const QuantizeBranch& quantize,
                      const std::function<bool(const Node&)>& is_excluded, PassContext& context);

}  // namespace pared
