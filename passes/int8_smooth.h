// Moves the spread of channels from activations, whose scale they share, into weights, which have
// room for it (SmoothQuant).
//
// Before:  y = MatMul(x, w)
// After:   y = MatMul(Mul(x, 1 / s), s w)     s by input channel

#pragma once

#include "passes/calibrate.h"
#include "passes/int8_choice.h"

namespace pared {

struct Smoothing {
  Model model;
  std::vector<std::string> values;  // that were smoothed, in graph order
};

// Value to strength; a value that is not named stays as it is.
using SmoothingStrengths = std::map<std::string, double>;

// s = max|x|^strength / max|w|^(1 - strength), over all the products that read x: MatMul and Gemm
// with the weight on the right. A value stays as it is where one of its weights is read by another
// node, or where an INT8 node writes it. `calibration` has the channels of the values.
Smoothing SmoothInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                     const Calibration& calibration, const SmoothingStrengths& strengths);

}  // namespace pared
