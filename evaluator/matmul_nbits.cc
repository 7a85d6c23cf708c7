#include "evaluator/matmul_nbits.h"

#include <array>

#include "evaluator/float_gemm.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

enum Input : size_t { kX = 0, kCodes = 1, kScales = 2, kZeroPoints = 3, kBlockOf = 4, kBias = 5 };

struct BlockedWeight {
  int64_t n = 0, k = 0, bits = 4, block_size = 0;
  std::string label;

  int64_t blocks() const { return (k + block_size - 1) / block_size; }
  int64_t codes_a_byte() const { return 8 / bits; }
};

BlockedWeight ReadAttributes(const Node& node) {
  BlockedWeight weight{.n = node.Int("N", 0),
                       .k = node.Int("K", 0),
                       .bits = node.Int("bits", 4),
                       .block_size = node.Int("block_size", 0),
                       .label = NodeLabel(node)};
  if (weight.n < 1 || weight.k < 1) RefuseNode("K and N must be positive", weight.label);
  if (weight.bits != 2 && weight.bits != 4 && weight.bits != 8) {
    RefuseNode("bits must be 2, 4 or 8, is " + std::to_string(weight.bits), weight.label);
  }
  const int64_t size = weight.block_size;
  if (size < 16 || (size & (size - 1)) != 0) {
    RefuseNode("block_size must be a power of two from 16, is " + std::to_string(size),
               weight.label);
  }
  return weight;
}

void CheckCount(const Tensor& tensor, int64_t count, const char* what, const std::string& label) {
  if (tensor.count() == count) return;
  RefuseNode(
      "needs " + std::to_string(count) + " " + what + ", has " + std::to_string(tensor.count()),
      label);
}

// Code number `at` of a run of packed bytes.
float CodeAt(const uint8_t* bytes, int64_t at, const BlockedWeight& w) {
  const int64_t shift = at % w.codes_a_byte() * w.bits;
  return static_cast<float>((bytes[at / w.codes_a_byte()] >> shift) & ((1 << w.bits) - 1));
}

// One number a block.
std::vector<float> ZeroPointsOf(const Tensor* given, const BlockedWeight& w) {
  const int64_t blocks = w.blocks();
  std::vector<float> values(Sz(w.n * blocks), static_cast<float>(1 << (w.bits - 1)));
  if (given == nullptr) return values;
  if (given->dtype() == DType::kUInt8) {
    const int64_t row_bytes = (blocks + w.codes_a_byte() - 1) / w.codes_a_byte();
    CheckCount(*given, w.n * row_bytes, "bytes of zero points", w.label);
    const uint8_t* bytes = given->data<uint8_t>().data();
    for (int64_t at = 0; at < w.n * blocks; ++at) {
      values[Sz(at)] = CodeAt(bytes + at / blocks * row_bytes, at % blocks, w);
    }
    return values;
  }
  if (given->dtype() != DType::kFloat32) RefuseDType(given->dtype(), w.label);
  CheckCount(*given, w.n * blocks, "zero points", w.label);
  return {given->data<float>().begin(), given->data<float>().end()};
}

std::vector<int64_t> BlocksOf(const Tensor* given, const BlockedWeight& w) {
  std::vector<int64_t> block_of(Sz(w.k));
  for (int64_t k = 0; k < w.k; ++k) block_of[Sz(k)] = k / w.block_size;
  if (given == nullptr) return block_of;
  const std::vector<int64_t> values = IntegersOf(*given, w.label);
  if (std::ssize(values) < w.k) RefuseNode("needs the block of each k", w.label);
  for (int64_t k = 0; k < w.k; ++k) {
    const int64_t block = values[Sz(k)];
    if (block < 0 || block >= w.blocks()) {
      RefuseNode("has no block " + std::to_string(block), w.label);
    }
    block_of[Sz(k)] = block;
  }
  return block_of;
}

// [n][k]
std::vector<float> Expand(const BlockedWeight& w, std::span<const Tensor* const> inputs) {
  const auto given = [&](size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };
  const Tensor &codes = *inputs[kCodes], &scales = *inputs[kScales];
  const int64_t blocks = w.blocks(), row_codes = blocks * w.block_size;
  if (codes.dtype() != DType::kUInt8) RefuseDType(codes.dtype(), w.label);
  if (scales.dtype() != DType::kFloat32) RefuseDType(scales.dtype(), w.label);
  CheckCount(codes, w.n * row_codes / w.codes_a_byte(), "bytes of codes", w.label);
  CheckCount(scales, w.n * blocks, "scales", w.label);
  const std::vector<float> zero_points = ZeroPointsOf(given(kZeroPoints), w);
  const std::vector<int64_t> block_of = BlocksOf(given(kBlockOf), w);
  const uint8_t* bytes = codes.data<uint8_t>().data();
  const float* scale = scales.data<float>().data();
  std::vector<float> values;
  values.reserve(Sz(w.n * w.k));
  for (int64_t n = 0; n < w.n; ++n) {
    const uint8_t* row = bytes + n * row_codes / w.codes_a_byte();
    for (int64_t k = 0; k < w.k; ++k) {
      const int64_t block = n * blocks + block_of[Sz(k)];
      values.push_back((CodeAt(row, k, w) - zero_points[Sz(block)]) * scale[block]);
    }
  }
  return values;
}

}  // namespace

std::vector<float> ExpandMatMulNBits(const Node& node, std::span<const Tensor* const> inputs) {
  return Expand(ReadAttributes(node), inputs);
}

Op PrepareMatMulNBits(const Node& node, const OpContext& context) {
  CheckInputCount(node, 3, 6);
  const BlockedWeight weight = ReadAttributes(node);
  const F32Kernels* kernels = &F32KernelsFor(context.isa);
  std::array<const Tensor*, kBias> constants = {};
  bool is_constant = true;
  for (size_t i = kCodes; i < kBias && i < context.constants.size(); ++i) {
    constants[i] = context.constants[i];
    is_constant = is_constant && (constants[i] != nullptr || !context.given[i]);
  }
  std::shared_ptr<const PackedRhs> packed;
  if (is_constant) {
    const std::vector<float> w = Expand(weight, constants);
    packed = PackConstantRhs({w.data(), weight.k, weight.n, 1, weight.k}, *kernels);
  }
  return [=](std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[kX];
    if (x.dtype() != DType::kFloat32) RefuseDType(x.dtype(), weight.label);
    if (x.rank() < 1 || x.shape().back() != weight.k) {
      RefuseNode("its input " + ShapeText(x.shape()) + " does not end in K", weight.label);
    }
    Shape shape = x.shape();
    shape.back() = weight.n;
    std::vector<float> expanded;
    if (packed == nullptr) expanded = Expand(weight, inputs);
    BatchedGemm gemm;
    gemm.m = x.count() / weight.k;
    gemm.n = weight.n;
    gemm.k = weight.k;
    gemm.a_row_step = weight.k;
    gemm.a_column_step = 1;
    gemm.b_row_step = 1;
    gemm.b_column_step = weight.k;
    gemm.packed = packed.get();
    if (inputs.size() > kBias && inputs[kBias] != nullptr) {
      CheckCount(*inputs[kBias], weight.n, "biases", weight.label);
      gemm.column_bias = inputs[kBias]->data<float>().data();
    }
    float* y = scratch.Allocate<float>(outputs[0], shape).data();
    gemm.products = {{x.data<float>().data(), expanded.data(), y}};
    RunBatchedGemm(gemm, *kernels, scratch);
  };
}

}  // namespace pared
