// Layers of sequences that Keras 3 writes as a WHILE over the steps.
//
// Its states: counters of steps, the sequence [T,B,I] (handed on), the layer's own (hidden, of LSTM
// the cell), and the list of outputs, [T,B,H] or of the last one [1,B,H]:
//
//   x = GATHER(sequence, t)    z = FULLY_CONNECTED(x, W) + FULLY_CONNECTED(h, R) + b
//
//   LSTM   i, f, g, o = SPLIT(z)    c' = LOGISTIC(f) c + LOGISTIC(i) tanh(g)
//          h' = LOGISTIC(o) tanh(c')
//   GRU    h' = u h + (1 - u) tanh(xh + r rh)    with the parts of both products apart,
//          u = LOGISTIC(xu + ru), r = LOGISTIC(xr + rr)
//   RNN    h' = tanh(z)
//
// Anything else (masks, other activations) stays a loop.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/tflite_values.h"

namespace pared {

// A product with a constant weight [rows, columns], and what is added to it; -1: nothing.
struct TfliteProduct {
  int64_t input = -1, weight = -1, bias = -1;
};

struct TfliteLoopedLayer {
  std::string type;                     // "LSTM", "GRU" or "RNN"
  TfliteProduct of_step, of_state;      // their biases are each one's own
  std::vector<int64_t> of_step_order;   // of the gates in the rows: as ONNX has them
  std::vector<int64_t> of_state_order;  // the same of the other product
  int64_t units = 0, steps = 0;
  size_t hidden = 0, cell = 0, sequence = 0;   // states
  std::vector<size_t> counters;                // states
  std::vector<std::pair<size_t, bool>> lists;  // states, and whether all outputs are in it
};

// Nothing: the WHILE runs no such layer.
std::optional<TfliteLoopedLayer> FindLoopedLayer(const TfliteValues& values, const TfliteOp& op);

}  // namespace pared
