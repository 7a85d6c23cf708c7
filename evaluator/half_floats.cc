#include "evaluator/half_floats.h"

#include <cmath>

namespace pared {
namespace {

constexpr int64_t kGrain = 16384;  // elements a task; below, starting one costs more than it saves

template <class Half>
void Widen(const Tensor& half, std::span<float> out, const Scratch& scratch) {
  const std::span<const Half> in = half.data<Half>();
  scratch.ParallelFor(half.count(), kGrain, [&](int64_t begin, int64_t end) {
    for (size_t i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      out[i] = ToFloat(in[i]);
    }
  });
}

}  // namespace

float ToFloat(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t rest = value.bits & 0x7fffu;
  if (rest >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  // Shifted into place the exponent is 112 too small; the product also normalizes subnormals.
  const float shifted = std::bit_cast<float>(rest << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(shifted));
}

Float16 ToFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // 65520: half a step above the largest
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 puts the last bit of the half where float rounds.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    const uint32_t odd = magnitude >> 13 & 1u;
    half = (magnitude - 0x38000000u + 0xfffu + odd) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

Tensor WidenHalf(const Tensor& half, Scratch& scratch) {
  Tensor out;
  const std::span<float> floats = scratch.Allocate<float>(out, half.shape());
  if (half.dtype() == DType::kFloat16) {
    Widen<Float16>(half, floats, scratch);
  } else {
    Widen<BFloat16>(half, floats, scratch);
  }
  return out;
}

Tensor NarrowToHalf(const Tensor& tensor, DType dtype, Scratch& scratch) {
  Tensor out;
  const std::span<const float> in = tensor.data<float>();
  std::byte* bytes = scratch.AllocateBytes(out, dtype, tensor.shape(), Layout::kRowMajor);
  uint16_t* halves = reinterpret_cast<uint16_t*>(bytes);
  const bool is_ieee = dtype == DType::kFloat16;
  scratch.ParallelFor(tensor.count(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float value = in[static_cast<size_t>(i)];
      halves[i] = is_ieee ? ToFloat16(value).bits : ToBFloat16(value).bits;
    }
  });
  return out;
}

Op AroundHalfFloats(Op op, std::vector<std::shared_ptr<const Tensor>> constants) {
  return [op = std::move(op), constants = std::move(constants)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    DType half = DType::kUndefined;
    bool has_float32 = false;
    for (const Tensor* input : inputs) {
      if (input == nullptr) continue;
      if (half == DType::kUndefined && IsHalfFloat(input->dtype())) half = input->dtype();
      has_float32 |= input->dtype() == DType::kFloat32;
    }
    if (half == DType::kUndefined) {
      op(inputs, outputs, scratch);
      return;
    }
    std::vector<const Tensor*> wide(inputs.begin(), inputs.end());
    std::vector<Tensor> widened(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i] == nullptr || !IsHalfFloat(inputs[i]->dtype())) continue;
      if (i < constants.size() && constants[i] != nullptr) {
        wide[i] = constants[i].get();
        continue;
      }
      widened[i] = WidenHalf(*inputs[i], scratch);
      wide[i] = &widened[i];
    }
    op(wide, outputs, scratch);
    const bool narrows = !has_float32 || (inputs[0] != nullptr && IsHalfFloat(inputs[0]->dtype()));
    if (!narrows) return;
    for (Tensor& output : outputs) {
      if (output.dtype() == DType::kFloat32) output = NarrowToHalf(output, half, scratch);
    }
  };
}

}  // namespace pared
