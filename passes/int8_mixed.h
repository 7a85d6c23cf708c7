// Which nodes of an INT8 model return to float: the answer to "which nodes must I exclude?".

#pragma once

#include "passes/int8_search.h"

namespace pared {

// Ranks the compute nodes by what their INT8 form alone costs, and returns as many of them to float
// as the options ask for; context.report gets "sensitivity" and "returned_to_float". Throws
// kUnsupported where a bound of the options does not hold with as many nodes as may return.
void ReturnToFloat(Int8Found& found, const Int8Request& request, PassContext& context);

// Whether the bounds of the options hold for `model`, which was made of found.best.model, too.
// Where they do and there is one of accuracy, context.report["accuracy_drop"] is this model's.
bool HoldsBounds(const Model& model, const Nearness& nearness, const Int8Found& found,
                 const Int8Request& request, PassContext& context);

}  // namespace pared
