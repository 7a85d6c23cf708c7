// Models from bytes of the ONNX wire format.

#pragma once

#include <memory>
#include <span>
#include <string>

#include "model/onnx.h"

namespace pared {

inline std::span<const std::byte> BytesOf(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

inline Model Parse(const std::string& bytes) {
  auto owner = std::make_shared<const std::string>(bytes);
  return ParseOnnx(BytesOf(*owner), owner);
}

}  // namespace pared
