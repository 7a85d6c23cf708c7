// Random numbers: the same for the same seed, on every machine and in every run.

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "evaluator/half_floats.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

// SplitMix64: a counter through a mixing function (Steele, Lea and Flood, 2014).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // In [0, 1), of 53 random bits.
  double Uniform() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
  }

  double Normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - Uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

uint64_t SeedOf(const Node& node, const OpContext& context) {
  if (!node.attributes.contains("seed")) return static_cast<uint64_t>(context.seed);
  return std::bit_cast<uint32_t>(node.Float("seed", 0.0F));
}

struct Distribution {
  bool is_normal = false;
  double first = 0, second = 1;  // mean and scale, or low and high
};

Distribution DistributionOf(const Node& node) {
  if (node.op_type.starts_with("RandomNormal")) {
    return {true, double{node.Float("mean", 0.0F)}, double{node.Float("scale", 1.0F)}};
  }
  return {false, double{node.Float("low", 0.0F)}, double{node.Float("high", 1.0F)}};
}

void Fill(const Distribution& distribution, uint64_t seed, DType dtype, const Shape& shape,
          Tensor& out, Scratch& scratch, const std::string& label) {
  Random random(seed);
  const auto draw = [&] {
    if (distribution.is_normal) return distribution.first + distribution.second * random.Normal();
    return distribution.first + (distribution.second - distribution.first) * random.Uniform();
  };
  DispatchFloat(IsHalfFloat(dtype) ? DType::kFloat32 : dtype, label, [&]<class T>() {
    for (T& value : scratch.Allocate<T>(out, shape)) value = static_cast<T>(draw());
  });
  if (IsHalfFloat(dtype)) out = NarrowToHalf(out, dtype, scratch);
}

Op PrepareRandom(const Node& node, const OpContext& context) {
  CheckInputCount(node, 0, 0);
  const DType dtype = static_cast<DType>(node.Int("dtype", static_cast<int64_t>(DType::kFloat32)));
  return [distribution = DistributionOf(node), seed = SeedOf(node, context), dtype,
          shape = node.Ints("shape"), label = NodeLabel(node)](
             std::span<const Tensor* const>, std::span<Tensor> outputs, Scratch& scratch) {
    Fill(distribution, seed, dtype, shape, outputs[0], scratch, label);
  };
}

Op PrepareRandomLike(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const DType given = static_cast<DType>(node.Int("dtype", 0));
  return [distribution = DistributionOf(node), seed = SeedOf(node, context), given,
          label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    const DType dtype = given == DType::kUndefined ? inputs[0]->dtype() : given;
    Fill(distribution, seed, dtype, inputs[0]->shape(), outputs[0], scratch, label);
  };
}

Op PrepareBernoulli(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const DType given = static_cast<DType>(node.Int("dtype", 0));
  return [seed = SeedOf(node, context), given, label = NodeLabel(node)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    Random random(seed);
    const DType dtype = given == DType::kUndefined ? inputs[0]->dtype() : given;
    DispatchFloat(inputs[0]->dtype(), label, [&]<class T>() {
      const std::span<const T> odds = inputs[0]->data<T>();
      const auto fill = [&]<class R>() {
        const std::span<R> y = scratch.Allocate<R>(outputs[0], inputs[0]->shape());
        for (size_t i = 0; i < y.size(); ++i)
          y[i] = random.Uniform() < double{odds[i]} ? R{1} : R{0};
      };
      if (dtype == DType::kBool) {
        fill.template operator()<bool>();
      } else {
        DispatchNumber(IsHalfFloat(dtype) ? DType::kFloat32 : dtype, label, fill);
      }
    });
    if (IsHalfFloat(dtype)) outputs[0] = NarrowToHalf(outputs[0], dtype, scratch);
  };
}

// Rows of unnormalized log-odds; draws indices.
Op PrepareMultinomial(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const DType dtype = static_cast<DType>(node.Int("dtype", static_cast<int64_t>(DType::kInt32)));
  return [seed = SeedOf(node, context), samples = node.Int("sample_size", 1), dtype,
          label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    if (inputs[0]->rank() != 2 || samples < 0) RefuseNode("needs a matrix of log-odds", label);
    const int64_t rows = inputs[0]->shape()[0], classes = inputs[0]->shape()[1];
    Random random(seed);
    DispatchFloat(inputs[0]->dtype(), label, [&]<class T>() {
      DispatchInteger(dtype, label, [&]<class R>() {
        R* y = scratch.Allocate<R>(outputs[0], {rows, samples}).data();
        for (int64_t row = 0; row < rows; ++row) {
          const auto odds = inputs[0]->data<T>().subspan(Sz(row * classes), Sz(classes));
          std::vector<double> sums;
          double sum = 0;
          for (const T value : odds) sums.push_back(sum += std::exp(static_cast<double>(value)));
          for (int64_t i = 0; i < samples; ++i) {
            const auto it = std::ranges::upper_bound(sums, random.Uniform() * sum);
            *y++ = static_cast<R>(std::min(it - sums.begin(), classes - 1));
          }
        }
      });
    });
  };
}

constexpr OpInfo kOps[] = {
    {"Bernoulli", "", PrepareBernoulli},
    {"Multinomial", "", PrepareMultinomial},
    {"RandomNormal", "", PrepareRandom, HalfFloats::kNative},
    {"RandomNormalLike", "", PrepareRandomLike, HalfFloats::kNative},
    {"RandomUniform", "", PrepareRandom, HalfFloats::kNative},
    {"RandomUniformLike", "", PrepareRandomLike, HalfFloats::kNative},
};

}  // namespace

std::span<const OpInfo> RandomOps() { return kOps; }

}  // namespace pared
