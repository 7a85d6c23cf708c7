// From a picture to the values that a model was trained on.

#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "config/fields.h"
#include "evaluator/image.h"
#include "model/tensor.h"

namespace pared {

// How the picture becomes `height` x `width` pixels.
enum class Fit {
  kShorterSide,  // the shorter side to size / crop_share, then the middle (torchvision, timm)
  kCropFirst,    // the middle square of crop_share of the shorter side, then to size (TensorFlow)
  kStretch,      // to size, whatever the shape
  kLetterbox,    // to fit within size, the rest filled evenly on both sides with 114 (Ultralytics)
};

enum class ImageLayout { kNchw, kNhwc };
enum class ChannelOrder { kRgb, kBgr, kGray };  // gray: ITU-R BT.601 luma, as Pillow's "L"

// value = (pixel / scale - mean) / std for each channel of its order.
struct ImageInput {
  int64_t height = 224, width = 224;
  Fit fit = Fit::kShorterSide;
  ResizeFilter filter = ResizeFilter::kBilinear;
  double crop_share = 0.875;
  double scale = 255;
  std::vector<double> mean = {0.485, 0.456, 0.406}, std = {0.229, 0.224, 0.225};
  ImageLayout layout = ImageLayout::kNchw;
  ChannelOrder channels = ChannelOrder::kRgb;
};

// "torchvision": torchvision's ImageNet evaluation: bilinear, the shorter side to 256, the middle
// 224, ImageNet's mean
//     and standard deviation.
// "timm": the same with bicubic, timm's usual.
// "tflite": TensorFlow's: the middle 87.5 %, bilinear, (pixel - 127.5) / 127.5, NHWC.
// "ultralytics": letterbox to 640, pixel / 255.
// Throws kInvalidArgument at `pointer` for another name.
ImageInput ImagePreset(const std::string& name, const std::string& pointer);

// Where a pixel (x, y) of the model's input lies in the picture: x * scale_x + left, y * scale_y +
// top.
struct ImagePlacement {
  double scale_x = 1, scale_y = 1, left = 0, top = 0;
};
ImagePlacement PlacementOf(const ImageInput& input, int64_t height, int64_t width);

// One sample, float, [channels, height, width] or [height, width, channels].
Tensor PrepareImage(const Image& image, const ImageInput& input);

}  // namespace pared
