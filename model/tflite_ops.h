// What each TensorFlow Lite operator is in ONNX, opset 17.
// Source of what they compute: the TensorFlow Lite operator documentation and reference kernels.

#pragma once

#include <span>
#include <string>

#include "model/tflite_values.h"

namespace pared {

struct TfliteOpInfo {
  const char* type;
  // Adds what the operator is and defines its outputs. Throws kUnsupported where it has no ONNX
  // counterpart as it is used there.
  void (*convert)(TfliteValues& values, const TfliteOp& op);
  size_t inputs = 1;          // that there must be at least
  bool has_optional = false;  // inputs behind them may be left out
};

// Convolutions, products and pools; functions of one element; reductions; what moves elements and
// what takes some; layers of sequences; what runs other graphs.
std::span<const TfliteOpInfo> TfliteComputeOps();
std::span<const TfliteOpInfo> TfliteElementwiseOps();
std::span<const TfliteOpInfo> TfliteReduceOps();
std::span<const TfliteOpInfo> TfliteLayoutOps();
std::span<const TfliteOpInfo> TfliteSelectOps();
std::span<const TfliteOpInfo> TfliteRecurrentOps();
std::span<const TfliteOpInfo> TfliteControlOps();

bool IsTfliteOp(const std::string& type);
// Of a type that is one: what is wrong with its inputs and outputs; empty: nothing.
std::string FaultOf(const TfliteOp& op);
void AddTfliteOp(TfliteValues& values, const TfliteOp& op);

// Whether the WHILE runs a recurrent layer as Keras writes it, which is then one operator: LSTM,
// GRU (reset after the product) or RNN, without masks. Adds nothing where it does not.
bool AddLoopedLayer(TfliteValues& values, const TfliteOp& op);

// The result with the activation function that is part of the operator (ActivationFunctionType).
std::string Activated(TfliteValues& values, int64_t activation, const std::string& value,
                      const std::string& base);

}  // namespace pared
