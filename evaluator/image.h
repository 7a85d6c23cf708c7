// Pictures: JPEG and PNG to 8-bit RGB, and the resizing of the libraries that models are trained
// with.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pared {

// Rows from top to bottom of R, G, B bytes.
struct Image {
  int64_t height = 0, width = 0;
  std::vector<uint8_t> rgb;  // height * width * 3

  Image() = default;
  Image(int64_t h, int64_t w) : height(h), width(w), rgb(static_cast<size_t>(h * w * 3)) {}
  const uint8_t* row(int64_t y) const { return rgb.data() + y * width * 3; }
  uint8_t* row(int64_t y) { return rgb.data() + y * width * 3; }
};

// A JPEG or PNG file's picture as Pillow's open().convert("RGB") gives it: grey is repeated, an
// alpha channel dropped, an EXIF orientation not applied. Throws kInvalidArgument where the bytes
// are damaged or hold more than `pixels_max` pixels, kUnsupported where they are neither format or
// CMYK; where = `name`.
Image DecodeImage(std::span<const std::byte> bytes, const std::string& name, int64_t pixels_max);

struct PictureSize {
  int64_t height = 0, width = 0;
};

// From the file's header alone. Throws as DecodeImage does.
PictureSize ReadPictureSize(std::span<const std::byte> bytes, const std::string& name,
                            int64_t pixels_max);

enum class ResizeFilter {
  kBilinear,  // Pillow's BILINEAR (torchvision, timm): a triangle as wide as the reduction, which
              // averages
  kBicubic,   // Pillow's BICUBIC: Keys' cubic with a = -0.5, likewise
  kBilinearPoint,  // OpenCV's INTER_LINEAR, TensorFlow without antialias: the four nearest pixels
};

struct ImageBox {
  int64_t top = 0, left = 0, height = 0, width = 0;
};

// The box, which lies within the image, resized. Pillow's filters give the bytes that Pillow gives
// where it, too, resizes the rows before the columns (always up to version 12; Pillow 13 turns the
// order round for some changes of shape).
Image Resize(const Image& image, ImageBox box, int64_t height, int64_t width, ResizeFilter filter);

}  // namespace pared
