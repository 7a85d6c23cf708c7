// Types and shapes of all values of a model, as far as they follow from its inputs.

#pragma once

#include <string>
#include <unordered_map>

#include "model/graph.h"

namespace pared {

struct ValueType {
  DType dtype = DType::kUndefined;        // kUndefined: not known
  std::optional<std::vector<Dim>> shape;  // nullopt: rank not known
};

// By value name, for the main graph. What the file states (inputs, outputs, value_info,
// initializers) is taken over; the rest follows from the operators. A value that an operator pared
// does not know makes is absent. Throws kInvalidArgument where the types of two statements
// contradict each other; of shapes that do, only what both allow is known, as in onnxruntime.
std::unordered_map<std::string, ValueType> InferShapes(const Model& model);

// For those to whom shapes are an opportunity, not a need: empty where statements contradict.
std::unordered_map<std::string, ValueType> ShapesIfConsistent(const Model& model);

}  // namespace pared
