#include "model/text_literal.h"

#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>

namespace pared {
namespace {

constexpr int64_t kElementsWrittenMax = 16;

// IEEE half of `value`, to nearest, ties to even.
uint16_t HalfBits(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7E00;
  if (magnitude >= 65520.0) return static_cast<uint16_t>(sign | 0x7C00);
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  // The step between neighbours: 11 bits of precision, and no finer than the subnormals' 2^-24.
  const int step = std::max(exponent - 11, -24);
  const double steps = std::nearbyint(std::ldexp(magnitude, -step));
  const int64_t bits = static_cast<int64_t>(steps) + (int64_t{step} + 24) * 1024;
  return static_cast<uint16_t>(sign | bits);
}

double HalfValue(uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return fraction != 0 ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

uint16_t BFloatBits(double value) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(value));
  if (std::isnan(value)) return 0x7FC0;
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// The little-endian bytes of one element; sub-byte types: the low bits.
uint64_t ElementBitsOf(const TextScanner::Number& number, DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return std::bit_cast<uint32_t>(static_cast<float>(number.real));
    case DType::kFloat64:
      return std::bit_cast<uint64_t>(number.real);
    case DType::kFloat16:
      return HalfBits(number.real);
    case DType::kBFloat16:
      return BFloatBits(number.real);
    default:
      return static_cast<uint64_t>(number.integer);
  }
}

bool IsReal(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat64 || dtype == DType::kFloat16 ||
         dtype == DType::kBFloat16;
}

bool IsUnsigned(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUInt2:
    case DType::kUInt4:
    case DType::kUInt8:
    case DType::kUInt16:
    case DType::kUInt32:
    case DType::kUInt64:
      return true;
    default:
      return false;
  }
}

void CheckFits(TextScanner& scan, const TextScanner::Number& number, DType dtype) {
  if (IsReal(dtype)) return;
  if (number.is_float) scan.Fail(std::string(DTypeName(dtype)) + " elements are integers");
  const int bits = dtype == DType::kBool ? 1 : ElementBits(dtype);
  const bool is_unsigned = IsUnsigned(dtype);
  const double limit = std::ldexp(1.0, is_unsigned ? bits : bits - 1);
  // A double does not tell the largest 64-bit numbers from the first beyond: there the sign tells.
  const bool wrapped = bits == 64 && !is_unsigned && (number.integer < 0) != (number.real < 0);
  const bool too_large = bits == 64 ? wrapped : number.real >= limit;
  if (too_large || number.real < (is_unsigned ? 0 : -limit)) {
    scan.Fail(std::string("the element does not fit ") + DTypeName(dtype));
  }
}

Tensor ParseStrings(TextScanner& scan, Shape shape) {
  std::vector<std::string> strings;
  scan.Expect('{');
  while (!scan.Match('}')) {
    if (!strings.empty()) scan.Expect(',');
    strings.push_back(scan.String());
  }
  if (static_cast<int64_t>(strings.size()) != ElementCount(shape)) {
    scan.Fail("the shape " + ShapeText(shape) + " has another number of elements");
  }
  return Tensor::MakeStrings(std::move(shape), std::move(strings));
}

// One element as text; `index` is in elements.
std::string ElementText(const Tensor& tensor, int64_t index) {
  const int64_t bits = ElementBits(tensor.dtype());
  const auto* bytes = reinterpret_cast<const unsigned char*>(tensor.bytes().data());
  uint64_t value = 0;
  if (bits < 8) {
    value = bytes[index * bits / 8] >> (index * bits % 8) & ((1U << bits) - 1);
  } else {
    std::memcpy(&value, bytes + index * bits / 8,
                static_cast<size_t>(std::min(bits / 8, int64_t{8})));
  }
  const auto real_text = [](auto real) {
    char buffer[64];
    const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, real);
    return std::string(buffer, end);
  };
  switch (tensor.dtype()) {
    case DType::kFloat32:
      return real_text(std::bit_cast<float>(static_cast<uint32_t>(value)));
    case DType::kFloat64:
      return real_text(std::bit_cast<double>(value));
    case DType::kFloat16:
      return real_text(HalfValue(static_cast<uint16_t>(value)));
    case DType::kBFloat16:
      return real_text(std::bit_cast<float>(static_cast<uint32_t>(value) << 16));
    default:
      break;
  }
  if (IsUnsigned(tensor.dtype())) return std::to_string(value);
  const int shift = static_cast<int>(64 - bits);
  return std::to_string(static_cast<int64_t>(value << shift) >> shift);
}

}  // namespace

DType DTypeOfName(std::string_view name) {
  for (int i = 1; i <= static_cast<int>(DType::kInt2); ++i) {
    const auto dtype = static_cast<DType>(i);
    if (name == DTypeName(dtype)) return dtype;
  }
  return DType::kUndefined;
}

Tensor ParseLiteral(TextScanner& scan, DType dtype, Shape shape) {
  if (dtype == DType::kString) return ParseStrings(scan, std::move(shape));
  if (!IsReal(dtype) && !IsUnsigned(dtype) && dtype != DType::kInt64 && dtype != DType::kInt32 &&
      dtype != DType::kInt16 && dtype != DType::kInt8 && dtype != DType::kInt4 &&
      dtype != DType::kInt2) {
    scan.Fail(std::string("no literals of type ") + DTypeName(dtype));
  }
  const int64_t count = ElementCount(shape);
  const auto bits = static_cast<size_t>(ElementBits(dtype));
  auto bytes = std::make_shared<std::vector<std::byte>>();
  int64_t read = 0;
  scan.Expect('{');
  while (!scan.Match('}')) {
    if (read > 0) scan.Expect(',');
    const TextScanner::Number number = scan.ReadNumber();
    CheckFits(scan, number, dtype);
    const uint64_t element = ElementBitsOf(number, dtype);
    if (bits >= 8) {
      const auto* source = reinterpret_cast<const std::byte*>(&element);
      bytes->insert(bytes->end(), source, source + bits / 8);
    } else {
      const size_t shift = static_cast<size_t>(read) * bits % 8;
      if (shift == 0) bytes->push_back(std::byte{0});
      bytes->back() |= static_cast<std::byte>((element & ((1U << bits) - 1)) << shift);
    }
    ++read;
  }
  if (read != count) {
    scan.Fail("the shape " + ShapeText(shape) + " has " + std::to_string(count) +
              " elements; there are " + std::to_string(read));
  }
  const std::span<const std::byte> view(*bytes);
  return Tensor::View(dtype, std::move(shape), view, std::move(bytes));
}

std::string LiteralText(const Tensor& tensor) {
  if (tensor.count() > kElementsWrittenMax || ElementBits(tensor.dtype()) > 64) {
    return "{... " + std::to_string(tensor.count()) + " elements}";
  }
  std::string text = "{";
  for (int64_t i = 0; i < tensor.count(); ++i) {
    if (i > 0) text += ", ";
    text += tensor.dtype() == DType::kString ? QuotedText(tensor.strings()[static_cast<size_t>(i)])
                                             : ElementText(tensor, i);
  }
  return text + "}";
}

}  // namespace pared
