// Which nodes of a model can compute in float16.

#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/graph.h"
#include "model/infer_shapes.h"
#include "passes/pass.h"

namespace pared {

using TypeMap = std::unordered_map<std::string, ValueType>;

// Types of the values of `graph`, a subgraph whose captured names have the types of `outer`.
TypeMap TypesOfSubgraph(const Model& model, const Graph& graph, const TypeMap& outer);

// In six digits at most: 1e-12, 3.40282e+38.
std::string ShortNumber(double value);

// What float16 does to the elements of one tensor.
struct HalfLoss {
  int64_t overflow = 0;   // finite, infinite in float16
  int64_t underflow = 0;  // not zero, zero in float16
  int64_t subnormal = 0;
  double relative_error = 0;  // root mean square, against that of the tensor
};
HalfLoss LossOf(const Tensor& tensor);

// Normal numbers lose at most 2^-11 of themselves; a tensor that loses more is out of range.
bool FitsHalf(const HalfLoss& loss);

// What float16 does to one value over the calibration samples.
struct HalfRange {
  double largest = 0;            // magnitude of the finite elements
  int64_t count = 0;             // of the elements
  HalfLoss loss;                 // of all of them
  double error = 0, energy = 0;  // squares, summed
  bool is_finite = true;
};
using HalfRanges = std::unordered_map<std::string, HalfRange>;

// By value; empty without data.
HalfRanges MeasureRanges(const Model& model, PassContext& context);

// The values that `half`, run with every result rounded to float16, makes infinite or NaN on the
// calibration samples, though `ranges` says that they are finite in float.
std::unordered_set<std::string> FindNotFinite(const Model& half, const HalfRanges& ranges,
                                              PassContext& context);

// Inputs of `node` that the operator's schema or its range keeps float32: Resize's roi and scales,
// Dropout's ratio, GridSample's places, which 11 bits do not tell apart in a large image.
bool StaysSingle(const Node& node, size_t input, int64_t opset);

struct HalfChoice {
  std::unordered_set<const Node*> half;               // nodes that compute in float16
  std::unordered_map<const Node*, std::string> kept;  // nodes of floats that do not, and why
};

// Decides for every node of the model and its subgraphs. `single`: nodes that stay float, and why.
using Reasons = std::unordered_map<const Node*, std::string>;
HalfChoice ChooseHalfNodes(const Model& model, const Reasons& single, const HalfRanges& ranges);

// Why the operator stays float32 whatever its values. Empty: it does not.
std::string WhyNoHalfOp(const Node& node, int64_t opset);

// Adds to `reasons` the nodes that compute in INT8: products of dequantized activations and
// dequantized weights, and what stands between quantized values.
void FindInt8(const Graph& graph, const GraphIndex& index, const TypeMap& types, Reasons& reasons);

// Adds to `reasons` the nodes that onnxruntime does not run in float16 though ONNX allows it.
void FindRefused(const Graph& graph, const GraphIndex& index, const TypeMap& types,
                 Reasons& reasons);

// Adds to `reasons` the nodes that find peaks: that compare a value with its MaxPool, and what
// makes the value.
void FindPeaks(const Graph& graph, const GraphIndex& index, Reasons& reasons);

// Nodes of the main graph that make, on some calibration sample, a difference much smaller than its
// operands, with the nodes that hand them their rounding.
Reasons FindCancelling(const Model& model, PassContext& context);

}  // namespace pared
