#include "evaluator/image_input.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace pared {
namespace {

constexpr uint8_t kLetterboxFill = 114;

struct Size {
  int64_t height, width;
};

// torchvision's Resize(int): the longer side is cut off to a whole number.
Size ShorterSideTo(int64_t side, const Image& image) {
  if (image.height <= image.width) return {side, side * image.width / image.height};
  return {side * image.height / image.width, side};
}

// Where a window of `inner` pixels begins in the middle of `outer`, as torchvision's CenterCrop
// rounds it: Python's round() of halves goes to the even number.
int64_t Middle(int64_t outer, int64_t inner) {
  return static_cast<int64_t>(std::nearbyint(static_cast<double>(outer - inner) / 2));
}

// The window, with zeros where it reaches beyond the image.
Image Crop(const Image& image, ImageBox box) {
  Image out(box.height, box.width);
  for (int64_t y = 0; y < box.height; ++y) {
    const int64_t from = box.top + y;
    if (from < 0 || from >= image.height) continue;
    const int64_t begin = std::max<int64_t>(0, box.left);
    const int64_t end = std::min(image.width, box.left + box.width);
    if (begin >= end) continue;
    std::copy(image.row(from) + begin * 3, image.row(from) + end * 3,
              out.row(y) + (begin - box.left) * 3);
  }
  return out;
}

ImageBox Whole(const Image& image) { return {0, 0, image.height, image.width}; }

Image FitShorterSide(const Image& image, const ImageInput& input) {
  const int64_t target = std::min(input.height, input.width);
  const auto side =
      static_cast<int64_t>(std::floor(static_cast<double>(target) / input.crop_share));
  const Size size = ShorterSideTo(side, image);
  const Image resized = Resize(image, Whole(image), std::max<int64_t>(1, size.height),
                               std::max<int64_t>(1, size.width), input.filter);
  return Crop(resized, {Middle(resized.height, input.height), Middle(resized.width, input.width),
                        input.height, input.width});
}

Image FitCropFirst(const Image& image, const ImageInput& input) {
  const int64_t shorter = std::min(image.height, image.width);
  const auto side =
      std::max<int64_t>(1, static_cast<int64_t>(input.crop_share * static_cast<double>(shorter)));
  const ImageBox box = {(image.height - side) / 2, (image.width - side) / 2, side, side};
  return Resize(image, box, input.height, input.width, input.filter);
}

struct Letterbox {
  Size size;  // of the picture within
  int64_t top, left;
};

Letterbox LetterboxOf(const ImageInput& input, int64_t height, int64_t width) {
  const double ratio = std::min(static_cast<double>(input.height) / static_cast<double>(height),
                                static_cast<double>(input.width) / static_cast<double>(width));
  const auto scaled = [&](int64_t side) {
    return std::max<int64_t>(
        1, static_cast<int64_t>(std::nearbyint(static_cast<double>(side) * ratio)));
  };
  const Size size = {scaled(height), scaled(width)};
  // An odd rest leaves the smaller half before the picture.
  return {size, (input.height - size.height) / 2, (input.width - size.width) / 2};
}

Image FitLetterbox(const Image& image, const ImageInput& input) {
  const Letterbox box = LetterboxOf(input, image.height, image.width);
  const Image resized = Resize(image, Whole(image), box.size.height, box.size.width, input.filter);
  Image out(input.height, input.width);
  std::ranges::fill(out.rgb, kLetterboxFill);
  for (int64_t y = 0; y < resized.height; ++y) {
    std::copy_n(resized.row(y), resized.width * 3, out.row(box.top + y) + box.left * 3);
  }
  return out;
}

Image FitTo(const Image& image, const ImageInput& input) {
  switch (input.fit) {
    case Fit::kShorterSide:
      return FitShorterSide(image, input);
    case Fit::kCropFirst:
      return FitCropFirst(image, input);
    case Fit::kLetterbox:
      return FitLetterbox(image, input);
    case Fit::kStretch:
      break;
  }
  return Resize(image, Whole(image), input.height, input.width, input.filter);
}

// Channel c of a pixel in the order asked for.
uint8_t Channel(const uint8_t* rgb, int64_t c, ChannelOrder order) {
  if (order == ChannelOrder::kRgb) return rgb[c];
  if (order == ChannelOrder::kBgr) return rgb[2 - c];
  // Pillow's weights of ITU-R BT.601, in 16 bits.
  return static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

// The 256 values of a channel.
std::array<float, 256> ValuesOf(const ImageInput& input, size_t channel) {
  const auto at = [&](const std::vector<double>& list) {
    return list.size() == 1 ? list[0] : list[channel];
  };
  std::array<float, 256> values;
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] =
        static_cast<float>((static_cast<double>(i) / input.scale - at(input.mean)) / at(input.std));
  }
  return values;
}

}  // namespace

ImageInput ImagePreset(const std::string& name, const std::string& pointer) {
  ImageInput input;
  if (name == "torchvision") return input;
  if (name == "timm") {
    input.filter = ResizeFilter::kBicubic;
  } else if (name == "tflite") {
    input.fit = Fit::kCropFirst;
    input.scale = 1;
    input.mean = input.std = {127.5};
    input.layout = ImageLayout::kNhwc;
  } else if (name == "ultralytics") {
    input.fit = Fit::kLetterbox;
    input.filter = ResizeFilter::kBilinearPoint;
    input.height = input.width = 640;
    input.mean = {0};
    input.std = {1};
  } else {
    throw Error(ErrorCode::kInvalidArgument,
                "must be torchvision, timm, tflite or ultralytics, is \"" + name + "\"", pointer);
  }
  return input;
}

ImagePlacement PlacementOf(const ImageInput& input, int64_t height, int64_t width) {
  const auto h = static_cast<double>(height), w = static_cast<double>(width);
  const auto in_h = static_cast<double>(input.height), in_w = static_cast<double>(input.width);
  if (input.fit == Fit::kStretch) return {w / in_w, h / in_h, 0, 0};
  if (input.fit == Fit::kLetterbox) {
    const Letterbox box = LetterboxOf(input, height, width);
    const double x = w / static_cast<double>(box.size.width),
                 y = h / static_cast<double>(box.size.height);
    return {x, y, -x * static_cast<double>(box.left), -y * static_cast<double>(box.top)};
  }
  const double shorter = std::min(h, w);
  const double scale = shorter * input.crop_share / std::min(in_h, in_w);
  return {scale, scale, (w - scale * in_w) / 2, (h - scale * in_h) / 2};
}

Tensor PrepareImage(const Image& image, const ImageInput& input) {
  const Image fitted = FitTo(image, input);
  const int64_t channels = input.channels == ChannelOrder::kGray ? 1 : 3;
  const int64_t pixels = fitted.height * fitted.width;
  const bool is_planar = input.layout == ImageLayout::kNchw;
  std::vector<float> values(static_cast<size_t>(pixels * channels));
  for (int64_t c = 0; c < channels; ++c) {
    const std::array<float, 256> table = ValuesOf(input, static_cast<size_t>(c));
    for (int64_t i = 0; i < pixels; ++i) {
      const uint8_t pixel = Channel(fitted.rgb.data() + i * 3, c, input.channels);
      values[static_cast<size_t>(is_planar ? c * pixels + i : i * channels + c)] = table[pixel];
    }
  }
  Shape shape = {channels, fitted.height, fitted.width};
  if (!is_planar) shape = {fitted.height, fitted.width, channels};
  return Tensor::Make<float>(std::move(shape), std::move(values));
}

}  // namespace pared
