// The windows that convolutions and pools move over images, and images as TensorFlow Lite lays them
// out: [N,H,W,C]. What has one spatial axis is an image of height 1.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/tflite_lowering.h"

namespace pared {

// How operators with windows are told to pad: Padding of the schema.
inline constexpr int8_t kPadSame = 0, kPadValid = 1;

struct TfliteWindow {
  std::vector<int64_t> kernel, strides, dilations, begins, ends;  // by spatial axis
  bool is_same = false;  // as TensorFlow Lite pads by itself: lengths are open
};

// Of the operator at hand. `spatial`: lengths of the input's spatial axes, -1: open.
TfliteWindow WindowOf(const TfliteLowering& l, const Shape& spatial, std::vector<int64_t> kernel);

// One spatial axis becomes two, the first of length 1.
void Widen(std::vector<int64_t>& axes, int64_t value);
void Widen(TfliteWindow& w);

bool IsUnpadded(const TfliteWindow& w);
// Whether TensorFlow Lite pads so where it is told SAME.
bool IsSame(const TfliteWindow& w, const Shape& spatial);

// The image with zeros around; with the least number where `with_least`.
int64_t Padded(TfliteLowering& l, int64_t x, const TfliteWindow& w, bool with_least);

// The value as an image, and the lengths of its spatial axes.
int64_t Image(TfliteLowering& l, const std::string& value, Shape& spatial);
// Of the operator's result.
Shape ImageShape(const TfliteLowering& l);
// Adds the operator that makes an image, in codes or not.
int64_t EmitImage(TfliteLowering& l, const std::string& type, std::vector<int64_t> inputs,
                  Shape shape, TfliteOptions options);
// `image` is the operator's result.
void DefineImage(TfliteLowering& l, int64_t image);

}  // namespace pared
