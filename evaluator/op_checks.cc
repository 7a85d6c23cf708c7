#include "evaluator/op_checks.h"

#include <algorithm>

namespace pared {

void RefuseDType(DType dtype, const std::string& label) {
  throw Error(ErrorCode::kUnsupported, std::string("not for elements of type ") + DTypeName(dtype),
              label);
}

void RefuseNode(const std::string& message, const std::string& label) {
  throw Error(ErrorCode::kInvalidArgument, message, label);
}

void CheckInputCount(const Node& node, size_t least, size_t most) {
  bool is_enough = node.inputs.size() >= least && node.inputs.size() <= most;
  for (size_t i = 0; is_enough && i < least; ++i) is_enough = !node.inputs[i].empty();
  if (is_enough) return;
  RefuseNode("takes " + std::to_string(least) +
                 (most == least ? "" : " to " + std::to_string(most)) + " inputs, has " +
                 std::to_string(node.inputs.size()),
             NodeLabel(node));
}

int64_t NormalizeAxis(int64_t axis, int64_t rank, const std::string& label) {
  if (axis < -rank || axis >= rank) {
    RefuseNode(
        "axis " + std::to_string(axis) + " is not in a tensor of rank " + std::to_string(rank),
        label);
  }
  return axis < 0 ? axis + rank : axis;
}

std::vector<int64_t> IntegersOf(const Tensor& tensor, const std::string& label) {
  if (tensor.dtype() == DType::kInt64) {
    const std::span<const int64_t> values = tensor.data<int64_t>();
    return {values.begin(), values.end()};
  }
  if (tensor.dtype() != DType::kInt32) RefuseDType(tensor.dtype(), label);
  const std::span<const int32_t> values = tensor.data<int32_t>();
  return {values.begin(), values.end()};
}

int64_t Extent(const Shape& shape, int64_t begin, int64_t end) {
  int64_t product = 1;
  for (int64_t axis = begin; axis < end; ++axis) product *= shape[Sz(axis)];
  return product;
}

Shape StridesOf(const Shape& shape) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
  return strides;
}

const std::byte* AlignedBytes(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return reinterpret_cast<const std::byte*>(tensor.data<float>().data());
    case DType::kFloat64:
      return reinterpret_cast<const std::byte*>(tensor.data<double>().data());
    case DType::kFloat16:
      return reinterpret_cast<const std::byte*>(tensor.data<Float16>().data());
    case DType::kBFloat16:
      return reinterpret_cast<const std::byte*>(tensor.data<BFloat16>().data());
    case DType::kInt16:
      return reinterpret_cast<const std::byte*>(tensor.data<int16_t>().data());
    case DType::kUInt16:
      return reinterpret_cast<const std::byte*>(tensor.data<uint16_t>().data());
    case DType::kInt32:
      return reinterpret_cast<const std::byte*>(tensor.data<int32_t>().data());
    case DType::kUInt32:
      return reinterpret_cast<const std::byte*>(tensor.data<uint32_t>().data());
    case DType::kInt64:
      return reinterpret_cast<const std::byte*>(tensor.data<int64_t>().data());
    case DType::kUInt64:
      return reinterpret_cast<const std::byte*>(tensor.data<uint64_t>().data());
    default:
      return tensor.bytes().data();
  }
}

}  // namespace pared
