// What the op families ask of nodes and tensors, and how they choose code by element type.

#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"
#include "evaluator/ops.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

// Throws kUnsupported: there is no code for elements of `dtype`.
[[noreturn]] void RefuseDType(DType dtype, const std::string& label);
// Throws kInvalidArgument.
[[noreturn]] void RefuseNode(const std::string& message, const std::string& label);

// Throws kInvalidArgument unless the node has from `least` to `most` inputs and gives the first
// `least` of them.
void CheckInputCount(const Node& node, size_t least, size_t most);

// `axis` counted from the front. Throws kInvalidArgument where it is not in [-rank, rank).
int64_t NormalizeAxis(int64_t axis, int64_t rank, const std::string& label);

// The elements of an int64 or int32 tensor.
std::vector<int64_t> IntegersOf(const Tensor& tensor, const std::string& label);

// For indexing: an int64_t known not to be negative.
inline size_t Sz(int64_t value) { return static_cast<size_t>(value); }

// Product of shape[begin .. end).
int64_t Extent(const Shape& shape, int64_t begin, int64_t end);

// Row-major strides, in elements.
Shape StridesOf(const Shape& shape);

// Calls f.template operator()<T>() for the C++ type of `dtype`; the types are in the names.
template <class F>
void DispatchFloat(DType dtype, const std::string& label, F&& f) {
  switch (dtype) {
    case DType::kFloat32:
      f.template operator()<float>();
      return;
    case DType::kFloat64:
      f.template operator()<double>();
      return;
    default:
      RefuseDType(dtype, label);
  }
}

template <class F>
void DispatchInteger(DType dtype, const std::string& label, F&& f) {
  switch (dtype) {
    case DType::kInt8:
      f.template operator()<int8_t>();
      return;
    case DType::kInt16:
      f.template operator()<int16_t>();
      return;
    case DType::kInt32:
      f.template operator()<int32_t>();
      return;
    case DType::kInt64:
      f.template operator()<int64_t>();
      return;
    case DType::kUInt8:
      f.template operator()<uint8_t>();
      return;
    case DType::kUInt16:
      f.template operator()<uint16_t>();
      return;
    case DType::kUInt32:
      f.template operator()<uint32_t>();
      return;
    case DType::kUInt64:
      f.template operator()<uint64_t>();
      return;
    default:
      RefuseDType(dtype, label);
  }
}

template <class F>
void DispatchNumber(DType dtype, const std::string& label, F&& f) {
  if (dtype == DType::kFloat32) {
    f.template operator()<float>();
  } else if (dtype == DType::kFloat64) {
    f.template operator()<double>();
  } else {
    DispatchInteger(dtype, label, std::forward<F>(f));
  }
}

// By the width of an element, for ops that only move elements: an unsigned type of that width.
struct Bytes16 {
  uint64_t low, high;
};
template <class F>
void DispatchWidth(DType dtype, const std::string& label, F&& f) {
  switch (ElementBits(dtype)) {
    case 8:
      f.template operator()<uint8_t>();
      return;
    case 16:
      f.template operator()<uint16_t>();
      return;
    case 32:
      f.template operator()<uint32_t>();
      return;
    case 64:
      f.template operator()<uint64_t>();
      return;
    case 128:
      f.template operator()<Bytes16>();
      return;
    default:
      RefuseDType(dtype, label);
  }
}

// The bytes of row-major elements, aligned for their type.
const std::byte* AlignedBytes(const Tensor& tensor);

// The elements as they lie, for DispatchWidth's T.
template <class T>
const T* Elements(const Tensor& tensor) {
  return reinterpret_cast<const T*>(AlignedBytes(tensor));
}
template <class T>
T* AllocateLike(Tensor& out, DType dtype, const Shape& shape, Scratch& scratch) {
  return reinterpret_cast<T*>(scratch.AllocateBytes(out, dtype, shape, Layout::kRowMajor));
}

}  // namespace pared
