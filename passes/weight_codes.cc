#include "passes/weight_codes.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "passes/int8_params.h"

namespace pared {
namespace {

constexpr float kCodeMin4 = -8, kCodeMax4 = 7;
// Largest magnitude over scale. Above 7 the largest positive elements saturate and the rest is
// finer; below 7 nothing gains.
constexpr float kDivisors[] = {7, 7.5f, 8, 8.5f, 9, 10};

// The elements of a float32 tensor where they lie, of others converted.
class Elements {
 public:
  explicit Elements(const Tensor& tensor) : tensor_(tensor) {
    if (tensor.dtype() != DType::kFloat32) converted_ = ToFloat(tensor);
  }
  std::span<const float> get() const {
    return tensor_.dtype() == DType::kFloat32 ? tensor_.data<float>() : converted_;
  }

 private:
  const Tensor& tensor_;
  std::vector<float> converted_;
};

// A tensor seen as [outer][length][inner] around one axis.
struct Around {
  int64_t outer = 1, length = 1, inner = 1;
};
Around At(const Shape& shape, int64_t axis) {
  return {ElementCount({shape.begin(), shape.begin() + axis}), shape[static_cast<size_t>(axis)],
          ElementCount({shape.begin() + axis + 1, shape.end()})};
}

// Above zero, so that zeros divide to zero and no subnormal makes an infinite quotient.
float ScaleFor(float largest, float divisor) {
  constexpr float kLeast = 1e-30f;
  return largest < kLeast ? 1.0f : largest / divisor;
}

float Code4(float value, float scale) {
  return std::clamp(std::nearbyint(value / scale), kCodeMin4, kCodeMax4);
}

struct Block {
  const float* begin;
  int64_t count, stride;
};

float BestScale4(const Block& block) {
  float largest = 0;
  for (int64_t i = 0; i < block.count; ++i) {
    largest = std::max(largest, std::fabs(block.begin[i * block.stride]));
  }
  float best = 1;
  double best_error = -1;
  for (const float divisor : kDivisors) {
    const float scale = ScaleFor(largest, divisor);
    double error = 0;
    for (int64_t i = 0; i < block.count; ++i) {
      const float value = block.begin[i * block.stride];
      const double off =
          static_cast<double>(value) - static_cast<double>(Code4(value, scale) * scale);
      error += off * off;
    }
    if (best_error >= 0 && error >= best_error) continue;
    best_error = error;
    best = scale;
  }
  return best;
}

}  // namespace

WeightCodes CodeChannels(const Tensor& weight, std::optional<int64_t> axis, float code_max) {
  const Elements elements(weight);
  const std::span<const float> x = elements.get();
  const Around around = axis ? At(weight.shape(), *axis) : Around{1, 1, weight.count()};
  std::vector<float> scales(static_cast<size_t>(around.length), 0);
  const auto each_row = [&](const auto& visit) {
    for (int64_t row = 0; row < around.outer * around.length; ++row) {
      visit(static_cast<size_t>(row % around.length), static_cast<size_t>(row * around.inner));
    }
  };
  const size_t inner = static_cast<size_t>(around.inner);
  each_row([&](size_t channel, size_t begin) {
    for (size_t i = begin; i < begin + inner; ++i) {
      scales[channel] = std::max(scales[channel], std::fabs(x[i]));
    }
  });
  for (float& scale : scales) scale = ScaleFor(scale, code_max);
  std::vector<int8_t> codes(x.size());
  each_row([&](size_t channel, size_t begin) {
    for (size_t i = begin; i < begin + inner; ++i) {
      const float code = std::nearbyint(x[i] / scales[channel]);
      codes[i] = static_cast<int8_t>(std::clamp(code, -code_max, code_max));
    }
  });
  const Shape scale_shape = axis ? Shape{around.length} : Shape{};
  return {Tensor::Make<int8_t>(weight.shape(), std::move(codes)),
          Tensor::Make<float>(scale_shape, std::move(scales))};
}

WeightCodes CodeBlocks(const Tensor& weight, int64_t axis, int64_t block_size) {
  const Elements elements(weight);
  const std::span<const float> x = elements.get();
  const Around around = At(weight.shape(), axis);
  const int64_t blocks = (around.length + block_size - 1) / block_size;
  std::vector<float> scales(static_cast<size_t>(around.outer * blocks * around.inner));
  const auto packed = std::make_shared<std::vector<std::byte>>((x.size() + 1) / 2, std::byte{0});
  for (int64_t at = 0; at < std::ssize(scales); ++at) {
    const int64_t inner = at % around.inner, block = at / around.inner % blocks;
    const int64_t outer = at / around.inner / blocks;
    const int64_t begin = (outer * around.length + block * block_size) * around.inner + inner;
    const int64_t count = std::min(block_size, around.length - block * block_size);
    const float scale = BestScale4({x.data() + begin, count, around.inner});
    scales[static_cast<size_t>(at)] = scale;
    for (int64_t i = 0; i < count; ++i) {
      const size_t element = static_cast<size_t>(begin + i * around.inner);
      const int code = static_cast<int>(Code4(x[element], scale)) & 0xF;
      (*packed)[element / 2] |=
          static_cast<std::byte>(code << (element % 2 * 4));  // low half first
    }
  }
  Shape scale_shape = weight.shape();
  scale_shape[static_cast<size_t>(axis)] = blocks;
  return {Tensor::View(DType::kInt4, weight.shape(), *packed, packed),
          Tensor::Make<float>(scale_shape, std::move(scales))};
}

std::optional<int64_t> StoredChannelAxis(const WeightSite& site) {
  const std::optional<int64_t> viewed = ChannelAxis(site);
  if (!viewed) return std::nullopt;
  const Shape& shape = site.stored.shape();
  if (site.order.empty() && shape == site.shape) return viewed;
  const Around seen = At(site.shape, *viewed);
  for (size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] != seen.length) continue;
    const Around stored = At(shape, static_cast<int64_t>(axis));
    bool is_same = true;
    for (int64_t i = 0; i < site.stored.count() && is_same; ++i) {
      is_same = i / seen.inner % seen.length == site.StoredIndex(i) / stored.inner % stored.length;
    }
    if (is_same) return static_cast<int64_t>(axis);
  }
  return std::nullopt;
}

}  // namespace pared
