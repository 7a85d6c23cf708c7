#include "evaluator/dynamic_product.h"

#include <algorithm>
#include <utility>

#include "evaluator/op_checks.h"
#include "evaluator/quantize.h"

namespace pared {

DynamicProduct::DynamicProduct(const Node& node, Weights weights, const OpContext& context)
    : weights_(std::move(weights)), isa_(context.isa) {
  product_ =
      MakeIntegerMatMul(node, {.w = &weights_.codes, .w_zero = &weights_.zero_point}, context);
  if (product_ == nullptr) {
    throw Error(ErrorCode::kUnsupported,
                "its weights must be a matrix of int8 or uint8, and their zero points one or one "
                "for each column",
                NodeLabel(node));
  }
}

void DynamicProduct::Run(const float* x, int64_t rows, float* y, Scratch& scratch) const {
  const int64_t k = weights_.codes.shape()[0];
  Scratch own(scratch.pool(), scratch.threads());  // a step of a recurrent layer frees its memory
  Tensor codes, result;
  const std::span<const float> values(x, Sz(rows * k));
  const DynamicScale chosen =
      QuantizeDynamically(values, own.Allocate<uint8_t>(codes, {rows, k}), isa_, own);
  std::vector<float> scale = weights_.scale;
  for (float& each : scale) each *= chosen.scale;
  const Tensor zero_point = Tensor::Scalar<uint8_t>(chosen.zero_point);
  product_->Run(codes, &zero_point, {.dtype = DType::kFloat32, .scale = scale}, result, own);
  std::ranges::copy(result.data<float>(), y);
  scratch.AddMacs(own.macs());
}

}  // namespace pared
