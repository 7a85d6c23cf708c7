// What the TensorFlow Lite schema, version 3 (schema.fbs), numbers: operators and types of tensors.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "model/tensor.h"

namespace pared {

inline constexpr uint32_t kTfliteSchemaVersion = 3;

// BuiltinOperator, from 0.
std::span<const char* const> TfliteOperatorNames();
std::optional<int32_t> TfliteOperatorNumber(std::string_view name);

// TensorType; kUndefined: what no ONNX model here holds.
DType TfliteDType(int8_t number);
std::optional<int8_t> TfliteTypeNumber(DType dtype);

}  // namespace pared
