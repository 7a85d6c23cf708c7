// Resizing as Pillow does it: two passes of fixed-point weights, each rounded to bytes; and as
// OpenCV and TensorFlow do it without antialias. Pixel centres lie at halves.

#include <algorithm>
#include <cmath>
#include <functional>

#include "base/check.h"
#include "evaluator/image.h"

namespace pared {
namespace {

// 8 bits of value and 2 of headroom, for weights that overshoot, in 32.
constexpr int kWeightBits = 32 - 8 - 2;

double Triangle(double x) { return std::max(0.0, 1 - std::fabs(x)); }

// R. Keys, Cubic convolution interpolation for digital image processing, 1981, equation 15.
double Cubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// One output pixel along an axis: weights of the inputs from `first` on.
struct Taps {
  int64_t first = 0;
  std::vector<int32_t> weights;
};

// The span [begin, begin + length) of an axis of `size` pixels to `count` pixels.
std::vector<Taps> MakeTaps(int64_t begin, int64_t length, int64_t count, ResizeFilter filter) {
  const bool is_cubic = filter == ResizeFilter::kBicubic;
  const double scale = static_cast<double>(length) / static_cast<double>(count);
  const double stretch = std::max(1.0, scale);
  const double support = (is_cubic ? 2.0 : 1.0) * stretch;
  std::vector<Taps> taps;
  for (int64_t i = 0; i < count; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const auto last = std::min(length, static_cast<int64_t>(center + support + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      const double place = (static_cast<double>(x) - center + 0.5) / stretch;
      weights.push_back(is_cubic ? Cubic(place) : Triangle(place));
      sum += weights.back();
    }
    Taps tap = {begin + first, {}};
    for (const double weight : weights) {
      const double scaled = weight / sum * (1 << kWeightBits);
      tap.weights.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
    taps.push_back(std::move(tap));
  }
  return taps;
}

uint8_t ToByte(int64_t sum) {
  return static_cast<uint8_t>(std::clamp<int64_t>(sum >> kWeightBits, 0, 255));
}

// A weighted sum of pixels `step` bytes apart.
uint8_t Weigh(const uint8_t* pixel, int64_t step, const Taps& taps) {
  int64_t sum = int64_t{1} << (kWeightBits - 1);
  for (const int32_t weight : taps.weights) {
    sum += int64_t{*pixel} * weight;
    pixel += step;
  }
  return ToByte(sum);
}

Image ResizeRows(const Image& image, ImageBox box, int64_t width, ResizeFilter filter) {
  if (width == box.width && box.left == 0 && box.width == image.width) return image;
  const std::vector<Taps> taps = MakeTaps(box.left, box.width, width, filter);
  Image out(image.height, width);
  for (int64_t y = box.top; y < box.top + box.height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const Taps& tap = taps[static_cast<size_t>(x)];
      for (int64_t c = 0; c < 3; ++c) {
        out.row(y)[x * 3 + c] = Weigh(image.row(y) + tap.first * 3 + c, 3, tap);
      }
    }
  }
  return out;
}

Image ResizeColumns(const Image& image, ImageBox box, int64_t height, ResizeFilter filter) {
  const std::vector<Taps> taps = MakeTaps(box.top, box.height, height, filter);
  Image out(height, image.width);
  const int64_t bytes = image.width * 3;
  for (int64_t y = 0; y < height; ++y) {
    const Taps& tap = taps[static_cast<size_t>(y)];
    for (int64_t i = 0; i < bytes; ++i) out.row(y)[i] = Weigh(image.row(tap.first) + i, bytes, tap);
  }
  return out;
}

// A place between two pixels of an axis, which ends are repeated beyond.
struct Between {
  int64_t low, high;
  float share;  // of high
};

Between Place(int64_t i, int64_t from, int64_t to, int64_t begin) {
  const float scale = static_cast<float>(from) / static_cast<float>(to);
  const float center = (static_cast<float>(i) + 0.5f) * scale - 0.5f;
  const float floor = std::floor(center);
  const auto low = static_cast<int64_t>(floor);
  const int64_t last = from - 1;
  return {begin + std::clamp<int64_t>(low, 0, last), begin + std::clamp<int64_t>(low + 1, 0, last),
          center - floor};
}

Image ResizePoint(const Image& image, ImageBox box, int64_t height, int64_t width) {
  Image out(height, width);
  for (int64_t y = 0; y < height; ++y) {
    const Between v = Place(y, box.height, height, box.top);
    for (int64_t x = 0; x < width; ++x) {
      const Between h = Place(x, box.width, width, box.left);
      for (int64_t c = 0; c < 3; ++c) {
        const auto at = [&](int64_t row, int64_t column) {
          return static_cast<float>(image.row(row)[column * 3 + c]);
        };
        const float top = at(v.low, h.low) + (at(v.low, h.high) - at(v.low, h.low)) * h.share;
        const float bottom = at(v.high, h.low) + (at(v.high, h.high) - at(v.high, h.low)) * h.share;
        out.row(y)[x * 3 + c] = static_cast<uint8_t>(std::lround(top + (bottom - top) * v.share));
      }
    }
  }
  return out;
}

}  // namespace

Image Resize(const Image& image, ImageBox box, int64_t height, int64_t width, ResizeFilter filter) {
  PARED_CHECK(box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0);
  PARED_CHECK(box.top + box.height <= image.height && box.left + box.width <= image.width);
  PARED_CHECK(height > 0 && width > 0);
  if (filter == ResizeFilter::kBilinearPoint) return ResizePoint(image, box, height, width);
  return ResizeColumns(ResizeRows(image, box, width, filter), box, height, filter);
}

}  // namespace pared
