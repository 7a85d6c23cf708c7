// Element types of a byte and less: float8, float4, int4 and int2, in and out of float32.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "evaluator/ops.h"
#include "model/tensor.h"

namespace pared {

// float8, float4, int4, uint4, int2, uint2: what DecodeSmall and EncodeSmall know.
bool IsSmallFormat(DType dtype);
bool IsSmallInteger(DType dtype);  // int4, uint4, int2, uint2

struct SmallRounding {
  enum class Scale { kUp, kDown, kNearest };

  bool saturates = true;     // else too large becomes infinity, or NaN where there is none
  Scale scale = Scale::kUp;  // float8e8m0 only: to which power of two
};

// All elements as float32; `tensor` is of a small format.
std::vector<float> DecodeSmall(const Tensor& tensor);

// Elements 0 to 255 of a format as float32, by code; a code of fewer bits repeats.
std::vector<float> DecodeTable(DType dtype);

// `values` in `dtype`, packed, first element in the low bits. Integers wrap as ONNX's Cast says.
void EncodeSmall(std::span<const float> values, DType dtype, SmallRounding rounding,
                 std::byte* out);

// The least and the largest value of an integer type, small ones too.
struct IntegerRange {
  int64_t low, high;
};
IntegerRange RangeOf(DType dtype);

}  // namespace pared
