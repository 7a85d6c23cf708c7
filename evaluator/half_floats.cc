#include "evaluator/half_floats.h"

#include <algorithm>
#include <cmath>

#include "kernels/half.h"

namespace pared {
namespace {

constexpr int64_t kGrain = 16384;  // elements a task; below, starting one costs more than it saves

}  // namespace

float ToFloat(Float16 value) { return HalfToFloat(value.bits); }

Float16 ToFloat16(float value) { return {FloatToHalf(value)}; }

BFloat16 ToBFloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

Tensor WidenHalf(const Tensor& half, Scratch& scratch) {
  Tensor out;
  float* floats = scratch.Allocate<float>(out, half.shape()).data();
  if (half.dtype() == DType::kFloat16) {
    static_assert(sizeof(Float16) == sizeof(uint16_t));
    const uint16_t* in = reinterpret_cast<const uint16_t*>(half.data<Float16>().data());
    scratch.ParallelFor(half.count(), kGrain, [&](int64_t begin, int64_t end) {
      HalvesToFloats(in + begin, end - begin, floats + begin, SelectedIsa());
    });
  } else {
    const BFloat16* in = half.data<BFloat16>().data();
    scratch.ParallelFor(half.count(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) floats[i] = ToFloat(in[i]);
    });
  }
  return out;
}

Tensor NarrowToHalf(const Tensor& tensor, DType dtype, Scratch& scratch) {
  Tensor out;
  const float* in = tensor.data<float>().data();
  std::byte* bytes = scratch.AllocateBytes(out, dtype, tensor.shape(), Layout::kRowMajor);
  uint16_t* halves = reinterpret_cast<uint16_t*>(bytes);
  scratch.ParallelFor(tensor.count(), kGrain, [&](int64_t begin, int64_t end) {
    if (dtype == DType::kFloat16) {
      FloatsToHalves(in + begin, end - begin, halves + begin, SelectedIsa());
      return;
    }
    for (int64_t i = begin; i < end; ++i) halves[i] = ToBFloat16(in[i]).bits;
  });
  return out;
}

bool MakesSingle(const Node& node, size_t output) {
  return node.op_type == "LayerNormalization" && output > 0 && node.Int("stash_type", 1) == 1;
}

Op AroundHalfFloats(Op op, std::vector<std::shared_ptr<const Tensor>> constants, size_t narrowed) {
  return [op = std::move(op), constants = std::move(constants), narrowed](
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
    for (Tensor& output : outputs.first(std::min(narrowed, outputs.size()))) {
      if (output.dtype() == DType::kFloat32) output = NarrowToHalf(output, half, scratch);
    }
  };
}

}  // namespace pared
