// Tensor: an immutable array of one element type. Copies share the buffer; to change one, build
// another.
//
// The bytes are row-major and little-endian, as in ONNX raw_data. They may be a view into a mapped
// file and unaligned there; data<T>() aligns once, on first use.

#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/check.h"

namespace pared {

static_assert(std::endian::native == std::endian::little, "tensor bytes are used as they lie");

// The numbers are ONNX's TensorProto.DataType. Those pared cannot compute with are carried only.
enum class DType : uint8_t {
  kUndefined = 0,
  kFloat32 = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kUInt16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kUInt32 = 12,
  kUInt64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBFloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUInt4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUInt2 = 25,
  kInt2 = 26,
};

// The name in ONNX's textual syntax ("float", "uint8"); "undefined" for what is none.
const char* DTypeName(DType dtype);

// Bits of one element; sub-byte types are packed, first element in the low bits. 0: kUndefined and
// kString, whose elements vary.
int ElementBits(DType dtype);

struct Float16 {
  uint16_t bits = 0;
};
struct BFloat16 {
  uint16_t bits = 0;
};

// The DType that holds C++ type T; only the specializations below exist.
template <class T>
inline constexpr DType kDTypeOf = DType::kUndefined;
template <>
inline constexpr DType kDTypeOf<float> = DType::kFloat32;
template <>
inline constexpr DType kDTypeOf<double> = DType::kFloat64;
template <>
inline constexpr DType kDTypeOf<Float16> = DType::kFloat16;
template <>
inline constexpr DType kDTypeOf<BFloat16> = DType::kBFloat16;
template <>
inline constexpr DType kDTypeOf<int8_t> = DType::kInt8;
template <>
inline constexpr DType kDTypeOf<int16_t> = DType::kInt16;
template <>
inline constexpr DType kDTypeOf<int32_t> = DType::kInt32;
template <>
inline constexpr DType kDTypeOf<int64_t> = DType::kInt64;
template <>
inline constexpr DType kDTypeOf<uint8_t> = DType::kUInt8;
template <>
inline constexpr DType kDTypeOf<uint16_t> = DType::kUInt16;
template <>
inline constexpr DType kDTypeOf<uint32_t> = DType::kUInt32;
template <>
inline constexpr DType kDTypeOf<uint64_t> = DType::kUInt64;
template <>
inline constexpr DType kDTypeOf<bool> = DType::kBool;

using Shape = std::vector<int64_t>;

// "[1, 3, 224, 224]"
std::string ShapeText(const Shape& shape);

// The product of the dimensions; 1 for a scalar. Throws kInvalidArgument where a dimension is
// negative or the product does not fit 63 bits.
int64_t ElementCount(const Shape& shape);

// Bytes that `shape` elements of `dtype` take when packed. Throws as ElementCount, and for kString.
int64_t PackedBytes(DType dtype, const Shape& shape);

// How the evaluator lays elements out. A tensor of a Model is always row-major.
enum class Layout : uint8_t {
  kRowMajor,
  kPlanar64,  // uint8 [N,C,H,W] as [N][ceil(H*W / 64)][C][64]; the last tile's tail is unspecified.
              // [N,C,L] and [N,C,D,H,W] likewise.
};

class Tensor {
 public:
  Tensor() = default;  // undefined: the value of an omitted optional input

  // `values` must be as many as `shape` says.
  template <class T>
  static Tensor Make(Shape shape, std::vector<T> values);
  template <class T>
  static Tensor Scalar(T value) {
    return Make<T>({}, {value});
  }
  // `strings` in row-major order, dtype kString.
  static Tensor MakeStrings(Shape shape, std::vector<std::string> strings);

  // Shares `bytes`, which `owner` keeps alive. `bytes` must have the size that dtype, shape and
  // layout need.
  static Tensor View(DType dtype, Shape shape, std::span<const std::byte> bytes,
                     std::shared_ptr<const void> owner, Layout layout = Layout::kRowMajor);
  // The same where `bytes` lie in a read-only mapping of a file.
  static Tensor MappedView(DType dtype, Shape shape, std::span<const std::byte> bytes,
                           std::shared_ptr<const void> owner);

  bool defined() const { return dtype_ != DType::kUndefined; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
  int64_t count() const { return count_; }
  Layout layout() const { return layout_; }

  // Possibly unaligned. Empty for kString.
  std::span<const std::byte> bytes() const;
  // Aligned for T, which must be the C++ type of dtype(). Thread-safe.
  template <class T>
  std::span<const T> data() const {
    PARED_CHECK(kDTypeOf<T> == dtype_);
    return {reinterpret_cast<const T*>(aligned_bytes(alignof(T))), static_cast<size_t>(count_)};
  }
  const std::vector<std::string>& strings() const;

  // Lets the kernel take back the memory of a mapped view; the next reader reads the file again.
  // Does nothing for other tensors.
  void DropPages() const;

  // The same buffer under another shape of as many elements.
  Tensor Reshaped(Shape shape) const;

 private:
  enum class Storage : uint8_t { kMemory, kMappedFile };
  struct Buffer;
  const std::byte* aligned_bytes(size_t alignment) const;

  DType dtype_ = DType::kUndefined;
  Layout layout_ = Layout::kRowMajor;
  Shape shape_;
  int64_t count_ = 0;
  std::shared_ptr<const Buffer> buffer_;
};

template <class T>
Tensor Tensor::Make(Shape shape, std::vector<T> values) {
  PARED_CHECK(static_cast<int64_t>(values.size()) == ElementCount(shape));
  if constexpr (std::is_same_v<T, bool>) {
    auto owner = std::make_shared<std::vector<uint8_t>>(values.begin(), values.end());
    const std::span<const std::byte> bytes = std::as_bytes(std::span<const uint8_t>(*owner));
    return View(DType::kBool, std::move(shape), bytes, std::move(owner));
  } else {
    auto owner = std::make_shared<std::vector<T>>(std::move(values));
    const std::span<const std::byte> bytes = std::as_bytes(std::span<const T>(*owner));
    return View(kDTypeOf<T>, std::move(shape), bytes, std::move(owner));
  }
}

}  // namespace pared
