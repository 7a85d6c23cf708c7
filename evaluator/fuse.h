// Rewrites a model for execution: DequantizeLinear - op - QuantizeLinear becomes one INT8 op of the
// domain "pared", whose values stay INT8 and planar between such ops. The model on disk is never
// written from this form.

#pragma once

#include "evaluator/executor.h"
#include "model/graph.h"

namespace pared {

// A model that computes what `model` computes. Integer results are those that the ONNX operators
// define; see evaluator/README.md for the one place where they round otherwise.
Model FuseForExecution(Model model, const ExecutorOptions& options);

}  // namespace pared
