#include "passes/weight_codes.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <vector>

#include "passes/float_elements.h"
#include "passes/int8_params.h"

namespace pared {
namespace {

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

// Packs `bits` of each code, low bits first, from the front of each row of `row` codes.
class CodePacker {
 public:
  CodePacker(int64_t rows, int64_t row, int64_t bits)
      : row_(row),
        row_bytes_((row * bits + 7) / 8),
        bits_(bits),
        bytes_(std::make_shared<std::vector<std::byte>>(static_cast<size_t>(rows * row_bytes_))) {}

  void Put(int64_t at, int64_t code) {
    const int64_t bit = at % row_ * bits_;
    (*bytes_)[static_cast<size_t>(at / row_ * row_bytes_ + bit / 8)] |=
        static_cast<std::byte>((code & ((1 << bits_) - 1)) << bit % 8);
  }
  Tensor Take(DType dtype, const Shape& shape) const {
    return Tensor::View(dtype, shape, *bytes_, bytes_);
  }
  int64_t row_bytes() const { return row_bytes_; }

 private:
  int64_t row_, row_bytes_, bits_;
  std::shared_ptr<std::vector<std::byte>> bytes_;
};

}  // namespace

int8_t NearestCode(float value, float scale, float code_max) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value / scale), -code_max, code_max));
}

WeightCodes CodeChannels(const Tensor& weight, std::optional<int64_t> axis, float code_max) {
  const FloatElements elements(weight);
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
      codes[i] = NearestCode(x[i], scales[channel], code_max);
    }
  });
  const Shape scale_shape = axis ? Shape{around.length} : Shape{};
  return {Tensor::Make<int8_t>(weight.shape(), std::move(codes)),
          Tensor::Make<float>(scale_shape, std::move(scales))};
}

int64_t StackAxis(const Tensor& weight, int64_t channel) {
  const FloatElements elements(weight);
  const std::span<const float> x = elements.get();
  if (x.empty()) return channel;
  const int64_t rank = weight.rank();
  const size_t columns = static_cast<size_t>(weight.shape().back());
  const size_t matrix =
      columns * static_cast<size_t>(weight.shape()[static_cast<size_t>(rank - 2)]);
  const auto loss_of = [&](int64_t axis) {
    const WeightCodes codes = CodeChannels(weight, axis);
    const std::span<const float> scales = codes.scales.data<float>();
    const Around around = At(weight.shape(), axis);
    std::vector<double> energy(x.size() / matrix * columns, 0), noise = energy;
    for (size_t i = 0; i < x.size(); ++i) {
      const size_t scale = i / static_cast<size_t>(around.inner) % scales.size();
      const float error = x[i] - scales[scale] * static_cast<float>(codes.codes.data<int8_t>()[i]);
      const size_t at = i / matrix * columns + i % columns;
      energy[at] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      noise[at] += static_cast<double>(error) * static_cast<double>(error);
    }
    double loss = 0;
    for (size_t i = 0; i < noise.size(); ++i) loss += energy[i] > 0 ? noise[i] / energy[i] : 0;
    return loss;
  };
  int64_t best = channel;
  double least = loss_of(channel);
  for (int64_t axis = 0; axis < rank - 2; ++axis) {
    const double loss = weight.shape()[static_cast<size_t>(axis)] > 1 ? loss_of(axis) : least;
    if (loss >= least) continue;
    least = loss;
    best = axis;
  }
  return best;
}

BlockMatrix RoundAlong(const Tensor& weight, int64_t axis, const BlockForm& form) {
  const FloatElements elements(weight);
  const Around around = At(weight.shape(), axis);
  return RoundToNearest({elements.get(), around.length, around.inner}, form);
}

WeightCodes CodeBlocks(const Tensor& weight, int64_t axis, const BlockForm& form) {
  return PackBlocks(RoundAlong(weight, axis, form), weight.shape(), axis);
}

WeightCodes PackBlocks(const BlockMatrix& matrix, const Shape& shape, int64_t axis) {
  const Around around = At(shape, axis);
  const int32_t middle = 1 << (matrix.form.bits - 1);  // signed codes are less by it
  CodePacker codes(1, ElementCount(shape), matrix.form.bits);
  const AxisRows elements{{}, around.length, around.inner};
  for (int64_t at = 0; at < matrix.rows * matrix.k; ++at) {
    codes.Put(elements.Index(at / matrix.k, at % matrix.k),
              matrix.codes[static_cast<size_t>(at)] - middle);
  }
  const int64_t blocks = matrix.blocks();
  const AxisRows places{{}, blocks, around.inner};
  std::vector<float> scales(matrix.scales.size());
  CodePacker zeros(1, std::ssize(scales), matrix.form.bits);
  for (int64_t at = 0; at < std::ssize(scales); ++at) {
    const int64_t place = places.Index(at / blocks, at % blocks);
    const BlockScale& scale = matrix.scales[static_cast<size_t>(at)];
    scales[static_cast<size_t>(place)] = scale.scale;
    zeros.Put(place, scale.zero_point - middle);
  }
  Shape scale_shape = shape;
  scale_shape[static_cast<size_t>(axis)] = blocks;
  WeightCodes made{codes.Take(DType::kInt4, shape),
                   Tensor::Make<float>(scale_shape, std::move(scales))};
  if (!matrix.form.is_symmetric) made.zero_points = zeros.Take(DType::kInt4, scale_shape);
  return made;
}

WeightCodes PackForMatMulNBits(const BlockMatrix& matrix) {
  const int64_t blocks = matrix.blocks(), size = matrix.form.block_size;
  CodePacker codes(matrix.rows, blocks * size, matrix.form.bits);
  CodePacker zeros(matrix.rows, blocks, matrix.form.bits);
  for (int64_t at = 0; at < matrix.rows * matrix.k; ++at) {
    codes.Put(at / matrix.k * blocks * size + at % matrix.k, matrix.codes[static_cast<size_t>(at)]);
  }
  std::vector<float> scales;
  for (int64_t at = 0; at < matrix.rows * blocks; ++at) {
    const BlockScale& scale = matrix.scales[static_cast<size_t>(at)];
    scales.push_back(scale.scale);
    zeros.Put(at, scale.zero_point);
  }
  WeightCodes made{codes.Take(DType::kUInt8, {matrix.rows, blocks, size * matrix.form.bits / 8}),
                   Tensor::Make<float>({matrix.rows, blocks}, std::move(scales))};
  if (!matrix.form.is_symmetric) {
    made.zero_points = zeros.Take(DType::kUInt8, {matrix.rows, zeros.row_bytes()});
  }
  return made;
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
