#include "evaluator/small_formats.h"

#include <cmath>
#include <limits>

namespace pared {
namespace {

// kIeee: infinity and NaN in the highest exponent. kFinite: NaN is all ones, no infinity.
// kUnsignedZero: NaN is the code of -0, no infinity. kNoNaN: neither.
enum class Specials { kIeee, kFinite, kUnsignedZero, kNoNaN };

struct MiniFloat {
  int exponent_bits, mantissa_bits, bias;
  Specials specials;
  double max;
};

MiniFloat FormatOf(DType dtype) {
  switch (dtype) {
    case DType::kFloat8E4M3FN:
      return {4, 3, 7, Specials::kFinite, 448};
    case DType::kFloat8E4M3FNUZ:
      return {4, 3, 8, Specials::kUnsignedZero, 240};
    case DType::kFloat8E5M2:
      return {5, 2, 15, Specials::kIeee, 57344};
    case DType::kFloat8E5M2FNUZ:
      return {5, 2, 16, Specials::kUnsignedZero, 57344};
    default:
      return {2, 1, 1, Specials::kNoNaN, 6};  // float4e2m1
  }
}

float DecodeFloat(unsigned code, const MiniFloat& format) {
  const unsigned mantissa = code & ((1u << format.mantissa_bits) - 1);
  const unsigned exponent = code >> format.mantissa_bits & ((1u << format.exponent_bits) - 1);
  const unsigned sign = code >> (format.mantissa_bits + format.exponent_bits) & 1;
  const bool is_highest = exponent == (1u << format.exponent_bits) - 1;
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  float value;
  if (format.specials == Specials::kIeee && is_highest) {
    value = mantissa == 0 ? std::numeric_limits<float>::infinity() : kNaN;
  } else if (format.specials == Specials::kFinite && is_highest &&
             mantissa == (1u << format.mantissa_bits) - 1) {
    value = kNaN;
  } else if (format.specials == Specials::kUnsignedZero && sign == 1 && exponent + mantissa == 0) {
    return kNaN;
  } else {
    const unsigned hidden = exponent == 0 ? 0u : 1u << format.mantissa_bits;
    const int scale = (exponent == 0 ? 1 : static_cast<int>(exponent)) - format.bias;
    value = std::ldexp(static_cast<float>(hidden + mantissa), scale - format.mantissa_bits);
  }
  return sign == 1 ? -value : value;
}

unsigned EncodeFloat(float value, const MiniFloat& format, bool saturates) {
  const int width = format.exponent_bits + format.mantissa_bits;
  const unsigned sign = std::signbit(value) ? 1u << width : 0u;
  const unsigned all_ones = (1u << width) - 1;
  const unsigned infinity = all_ones & ~((1u << format.mantissa_bits) - 1);
  const auto nan = [&] {
    // kNoNaN has none: it becomes -0, as the onnx package casts it.
    if (format.specials == Specials::kUnsignedZero || format.specials == Specials::kNoNaN) {
      return 1u << width;
    }
    // A quiet NaN: the first bit of the mantissa.
    if (format.specials == Specials::kIeee)
      return sign | infinity | 1u << (format.mantissa_bits - 1);
    return sign | all_ones;
  };
  if (std::isnan(value)) return nan();
  const double magnitude = std::abs(double{value});
  int exponent = 0;
  if (magnitude > 0 && std::isfinite(magnitude)) std::frexp(magnitude, &exponent);
  const int scale = std::max(exponent - 1, 1 - format.bias) - format.mantissa_bits;
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(magnitude, -scale)), scale);
  if (rounded > format.max || std::isinf(magnitude)) {
    if (!saturates && format.specials == Specials::kIeee) return sign | infinity;
    if (!saturates && format.specials != Specials::kNoNaN) return nan();
    return EncodeFloat(static_cast<float>(std::copysign(format.max, value)), format, true);
  }
  if (rounded == 0) return format.specials == Specials::kUnsignedZero ? 0u : sign;
  std::frexp(rounded, &exponent);
  const int field = std::max(exponent - 1, 1 - format.bias);
  const auto digits = static_cast<unsigned>(std::ldexp(rounded, format.mantissa_bits - field));
  // A subnormal has no hidden bit: its exponent field becomes 0 by the same sum.
  const auto base = static_cast<unsigned>(field + format.bias - 1) << format.mantissa_bits;
  return sign | (base + digits);
}

float DecodeScale(unsigned code) {
  if (code == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0F, static_cast<int>(code) - 127);
}

unsigned EncodeScale(float value, SmallRounding rounding) {
  if (std::isnan(value)) return 255;
  const float magnitude = std::abs(value);
  if (std::isinf(magnitude)) return rounding.saturates ? 254 : 255;
  if (magnitude == 0) return 0;
  int exponent = 0;
  const float fraction = std::frexp(magnitude, &exponent);  // [0.5, 1)
  int code = exponent - 1 + 127;
  const bool is_power = fraction == 0.5F;
  if (rounding.scale == SmallRounding::Scale::kUp && !is_power) ++code;
  if (rounding.scale == SmallRounding::Scale::kNearest && fraction >= 0.75F) ++code;
  if (code > 254) return rounding.saturates ? 254 : 255;
  return static_cast<unsigned>(std::max(code, 0));
}

unsigned Encode(float value, DType dtype, SmallRounding rounding) {
  if (dtype == DType::kFloat8E8M0) return EncodeScale(value, rounding);
  if (!IsSmallInteger(dtype)) return EncodeFloat(value, FormatOf(dtype), rounding.saturates);
  return static_cast<unsigned>(static_cast<int64_t>(value)) & ((1u << ElementBits(dtype)) - 1);
}

}  // namespace

bool IsSmallFormat(DType dtype) { return dtype >= DType::kFloat8E4M3FN && dtype <= DType::kInt2; }

bool IsSmallInteger(DType dtype) {
  return dtype == DType::kInt4 || dtype == DType::kUInt4 || dtype == DType::kInt2 ||
         dtype == DType::kUInt2;
}

std::vector<float> DecodeTable(DType dtype) {
  std::vector<float> table(256);
  const int bits = ElementBits(dtype);
  for (unsigned byte = 0; byte < 256; ++byte) {
    const unsigned code = byte & ((1u << bits) - 1);
    if (dtype == DType::kFloat8E8M0) {
      table[byte] = DecodeScale(code);
    } else if (dtype == DType::kInt4 || dtype == DType::kInt2) {
      const int half = 1 << (bits - 1);
      table[byte] = static_cast<float>((static_cast<int>(code) ^ half) - half);
    } else if (IsSmallInteger(dtype)) {
      table[byte] = static_cast<float>(code);
    } else {
      table[byte] = DecodeFloat(code, FormatOf(dtype));
    }
  }
  return table;
}

std::vector<float> DecodeSmall(const Tensor& tensor) {
  const std::vector<float> table = DecodeTable(tensor.dtype());
  const size_t bits = static_cast<size_t>(ElementBits(tensor.dtype()));
  const std::span<const std::byte> bytes = tensor.bytes();
  std::vector<float> values(static_cast<size_t>(tensor.count()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = table[std::to_integer<unsigned>(bytes[i * bits / 8]) >> (i * bits % 8)];
  }
  return values;
}

void EncodeSmall(std::span<const float> values, DType dtype, SmallRounding rounding,
                 std::byte* out) {
  const size_t bits = static_cast<size_t>(ElementBits(dtype));
  std::fill_n(out, (values.size() * bits + 7) / 8, std::byte{0});
  for (size_t i = 0; i < values.size(); ++i) {
    out[i * bits / 8] |=
        static_cast<std::byte>(Encode(values[i], dtype, rounding) << (i * bits % 8));
  }
}

IntegerRange RangeOf(DType dtype) {
  switch (dtype) {
    case DType::kInt2:
      return {-2, 1};
    case DType::kUInt2:
      return {0, 3};
    case DType::kInt4:
      return {-8, 7};
    case DType::kUInt4:
      return {0, 15};
    case DType::kInt8:
      return {INT8_MIN, INT8_MAX};
    case DType::kUInt8:
      return {0, UINT8_MAX};
    case DType::kInt16:
      return {INT16_MIN, INT16_MAX};
    case DType::kUInt16:
      return {0, UINT16_MAX};
    default:
      return {INT32_MIN, INT32_MAX};
  }
}

}  // namespace pared
