// Moves the spread of channels from activations, whose scale they share, into weights, which have
// room for it (SmoothQuant).
//
// Before:  y = MatMul(x, w)
// After:   y = MatMul(Mul(x, 1 / s), s w)     s by input channel

#pragma once

#include <map>
#include <string>
#include <vector>

#include "passes/int8_choice.h"

namespace pared {

struct Smoothing {
  Model model;
  std::vector<std::string> values;  // that were smoothed, in graph order
};

// Value to its factors s, one for each channel.
using SmoothingFactors = std::map<std::string, std::vector<float>>;

// All the products that read `value`: MatMul and Gemm with the weight on the right. Empty where one
// of their weights is read by another node too, where an INT8 node writes the value, and where its
// range is fixed (FixedRange).
std::vector<const WeightSite*> SmoothableProducts(const Int8ChoiceContext& context,
                                                  const Int8Choice& choice,
                                                  const std::string& value);

// Factors of values that are not smoothable are an error of the caller's.
Smoothing SmoothInt8(const Int8ChoiceContext& context, const Int8Choice& choice,
                     const SmoothingFactors& factors);

}  // namespace pared
