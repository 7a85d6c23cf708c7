// Weights and biases as operators of TensorFlow Lite read them.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/tflite_lowering.h"

namespace pared {

struct TfliteWeights {
  int64_t weight = -1, bias = -1;  // tensors
};

// Whether they are symmetric codes of int8 with one scale, or one for each index of `axis`.
bool SuitsCodes(const std::optional<TfliteLowering::Stored>& stored, int64_t axis);

// The weight with its axes in the order, then in the shape; the bias, zeros where `bias` is empty.
// In codes: symmetric int8 with one scale or one for each index of axis `outputs`, and int32 in
// units of the products. Leaves codes where they have no such form, and are floats then.
TfliteWeights MakeWeights(TfliteLowering& l, const std::string& weight, const std::string& bias,
                          int64_t outputs, const AxisOrder& order, const Shape& shape);

// A constant bias of `count` numbers, or of one for all; zeros where `value` is empty. nullopt: it
// is computed, or of another length.
std::optional<std::vector<float>> BiasFloats(const TfliteLowering& l, const std::string& value,
                                             int64_t count);

}  // namespace pared
