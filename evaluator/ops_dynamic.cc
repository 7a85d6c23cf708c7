// Integer products of dynamically quantized activations, scaled to float: made by fuse_dynamic.cc.
//
//   y = float(sums) * scale [+ bias] [max 0]      inputs: x, w, x_zero, w_zero, scale, bias

#include <memory>

#include "base/check.h"
#include "evaluator/integer_product.h"
#include "evaluator/ops_int8.h"

namespace pared {
namespace {

enum Input : size_t { kX = 0, kW = 1, kXZero = 2, kWZero = 3, kScale = 4, kBias = 5 };

Op RunProduct(std::shared_ptr<const IntegerProduct> product, bool relu) {
  PARED_CHECK(product != nullptr);  // fuse_dynamic.cc takes only what fits
  return [product = std::move(product), relu](std::span<const Tensor* const> inputs,
                                              std::span<Tensor> outputs, Scratch& scratch) {
    IntegerResult result{
        .dtype = DType::kFloat32, .scale = inputs[kScale]->data<float>(), .relu = relu};
    if (inputs[kBias] != nullptr) result.bias = inputs[kBias]->data<float>();
    product->Run(*inputs[kX], inputs[kXZero], result, outputs[0], scratch);
  };
}

IntegerOperands OperandsOf(const OpContext& context) {
  return {.w = context.constants[kW], .w_zero = context.constants[kWZero]};
}

}  // namespace

Op PrepareConvIntegerToFloat(const Node& node, const OpContext& context) {
  return RunProduct(MakeIntegerConv(node, OperandsOf(context), context), node.Int("relu", 0) != 0);
}

Op PrepareMatMulIntegerToFloat(const Node& node, const OpContext& context) {
  return RunProduct(MakeIntegerMatMul(node, OperandsOf(context), context),
                    node.Int("relu", 0) != 0);
}

}  // namespace pared
