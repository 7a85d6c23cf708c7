#include "model/tensor.h"

#include <cstring>
#include <mutex>
#include <utility>

#include "base/error.h"
#include "model/mapped_file.h"

namespace pared {
namespace {

struct DTypeInfo {
  const char* name;
  int bits;
};

constexpr DTypeInfo kDTypes[] = {
    {"undefined", 0},      {"float", 32},       {"uint8", 8},          {"int8", 8},
    {"uint16", 16},        {"int16", 16},       {"int32", 32},         {"int64", 64},
    {"string", 0},         {"bool", 8},         {"float16", 16},       {"double", 64},
    {"uint32", 32},        {"uint64", 64},      {"complex64", 64},     {"complex128", 128},
    {"bfloat16", 16},      {"float8e4m3fn", 8}, {"float8e4m3fnuz", 8}, {"float8e5m2", 8},
    {"float8e5m2fnuz", 8}, {"uint4", 4},        {"int4", 4},           {"float4e2m1", 4},
    {"float8e8m0", 8},     {"uint2", 2},        {"int2", 2},           {"sequence", 0},
};

// The evaluator's sequences: of items whose size only it knows (evaluator/sequence.h).
constexpr size_t kSequenceNumber = std::size(kDTypes) - 1;

const DTypeInfo& InfoOf(DType dtype) {
  const auto index = static_cast<size_t>(dtype);
  PARED_CHECK(index < std::size(kDTypes));
  return kDTypes[index];
}

// Bytes of a tensor in kPlanar64: whole tiles of 64 pixels.
int64_t PlanarBytes(const Shape& shape) {
  PARED_CHECK(shape.size() >= 3);
  const int64_t tiles = (ElementCount(Shape(shape.begin() + 2, shape.end())) + 63) / 64;
  return ElementCount({shape[0], tiles, shape[1], 64});
}

}  // namespace

const char* DTypeName(DType dtype) { return InfoOf(dtype).name; }

int ElementBits(DType dtype) { return InfoOf(dtype).bits; }

std::string ShapeText(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + "]";
}

int64_t ElementCount(const Shape& shape) {
  int64_t count = 1;
  bool overflow = false;
  bool has_zero = false;
  for (const int64_t dim : shape) {
    if (dim < 0) {
      throw Error(ErrorCode::kInvalidArgument,
                  "shape " + ShapeText(shape) + " has a dimension below 0");
    }
    has_zero = has_zero || dim == 0;
    overflow = overflow || __builtin_mul_overflow(count, dim, &count);
  }
  if (has_zero) return 0;
  if (overflow) {
    throw Error(ErrorCode::kInvalidArgument, "shape " + ShapeText(shape) + " is too large");
  }
  return count;
}

int64_t PackedBytes(DType dtype, const Shape& shape) {
  const int64_t bits = ElementBits(dtype);
  if (bits == 0) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("elements of type ") + DTypeName(dtype) + " have no fixed size");
  }
  int64_t total = 0;
  if (__builtin_mul_overflow(ElementCount(shape), bits, &total) || total > INT64_MAX - 7) {
    throw Error(ErrorCode::kInvalidArgument, "shape " + ShapeText(shape) + " is too large");
  }
  return (total + 7) / 8;
}

struct Tensor::Buffer {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
  std::vector<std::string> strings;
  Storage storage = Storage::kMemory;

  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
  };
  mutable std::once_flag aligned_once;
  mutable std::unique_ptr<std::byte, Free> aligned;  // written under aligned_once
};

Tensor Tensor::MakeStrings(Shape shape, std::vector<std::string> strings) {
  PARED_CHECK(static_cast<int64_t>(strings.size()) == ElementCount(shape));
  Tensor tensor;
  tensor.dtype_ = DType::kString;
  tensor.shape_ = std::move(shape);
  tensor.count_ = static_cast<int64_t>(strings.size());
  auto buffer = std::make_shared<Buffer>();
  buffer->strings = std::move(strings);
  tensor.buffer_ = std::move(buffer);
  return tensor;
}

Tensor Tensor::View(DType dtype, Shape shape, std::span<const std::byte> bytes,
                    std::shared_ptr<const void> owner, Layout layout) {
  if (static_cast<size_t>(dtype) != kSequenceNumber) {
    const int64_t size =
        layout == Layout::kPlanar64 ? PlanarBytes(shape) : PackedBytes(dtype, shape);
    PARED_CHECK(static_cast<int64_t>(bytes.size()) == size);
  }
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.layout_ = layout;
  tensor.count_ = ElementCount(shape);
  tensor.shape_ = std::move(shape);
  auto buffer = std::make_shared<Buffer>();
  buffer->bytes = bytes;
  buffer->owner = std::move(owner);
  tensor.buffer_ = std::move(buffer);
  return tensor;
}

Tensor Tensor::MappedView(DType dtype, Shape shape, std::span<const std::byte> bytes,
                          std::shared_ptr<const void> owner) {
  Tensor tensor = View(dtype, std::move(shape), bytes, nullptr);
  auto buffer = std::make_shared<Buffer>();
  buffer->bytes = bytes;
  buffer->owner = std::move(owner);
  buffer->storage = Storage::kMappedFile;
  tensor.buffer_ = std::move(buffer);
  return tensor;
}

std::span<const std::byte> Tensor::bytes() const {
  if (buffer_ == nullptr) return {};
  return buffer_->bytes;
}

void Tensor::DropPages() const {
  if (buffer_ != nullptr && buffer_->storage == Storage::kMappedFile) {
    DropMappedPages(buffer_->bytes);
  }
}

const std::vector<std::string>& Tensor::strings() const {
  PARED_CHECK(dtype_ == DType::kString);
  return buffer_->strings;
}

Tensor Tensor::Reshaped(Shape shape) const {
  PARED_CHECK(defined());
  PARED_CHECK(layout_ == Layout::kRowMajor);
  PARED_CHECK(ElementCount(shape) == count_);
  Tensor tensor = *this;
  tensor.shape_ = std::move(shape);
  return tensor;
}

const std::byte* Tensor::aligned_bytes(size_t alignment) const {
  const Buffer& buffer = *buffer_;
  const std::span<const std::byte> bytes = buffer.bytes;
  if (reinterpret_cast<uintptr_t>(bytes.data()) % alignment == 0) return bytes.data();
  std::call_once(buffer.aligned_once, [&] {
    buffer.aligned.reset(
        static_cast<std::byte*>(::operator new (bytes.size(), std::align_val_t{64})));
    std::memcpy(buffer.aligned.get(), bytes.data(), bytes.size());
    // The copy is what readers use from now on; both at once would double the memory of a model.
    if (buffer.storage == Storage::kMappedFile) DropMappedPages(bytes);
  });
  return buffer.aligned.get();
}

}  // namespace pared
