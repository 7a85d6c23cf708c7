// From an array of samples to what a model's input takes.

#pragma once

#include <cstdint>
#include <string>

#include "config/fields.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

bool IsFloat(DType dtype);   // 32 or 64 bits
bool IsNumber(DType dtype);  // those, and integers of 8 to 64 bits with a sign, 8 and 16 without

// An array of integers as int64.
Tensor ToInt64(const Tensor& array);

// `tensor` as `dtype`, rounded where that is float16 or bfloat16. Integers never come from floats,
// nor from wider integers. Throws kInvalidArgument at "input NAME".
Tensor Widened(Tensor tensor, DType dtype, const std::string& input);

// The elements of one sample of an array whose first axis counts samples, as a view.
Tensor Slice(const Tensor& array, int64_t sample);

// The first `length` of the last axis.
Tensor CutLastAxis(const Tensor& sample, int64_t length);

// A sample's shape with the batch axis of 1 where the input's rank needs it, whatever batch the
// input wants then. Throws kInvalidArgument at "input NAME", naming the axis and both sizes, where
// it does not fit.
Shape BatchShape(const Shape& sample, const ValueInfo& input);

// `sample`, of the shape that BatchShape gave, as often as the input's fixed batch wants it. Throws
// kInvalidArgument at "input NAME" where that takes more than a GiB.
Tensor Repeated(const Tensor& sample, const ValueInfo& input);

// A tensor of one value, in the shape of the input; an axis that it does not know is 1. Throws
// kInvalidArgument at "input NAME" where the value is none of the input's type.
Tensor ConstantFor(const ValueInfo& input, double value);

}  // namespace pared
