// libFuzzer target over the ONNX reader, and what every job does with a model it read.
// Build: the fuzz preset (clang). Corpus: any small ONNX files.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/error.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "model/text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A copy of exactly this size: the address sanitizer sees every read past its end.
  auto owner = std::make_shared<const std::vector<uint8_t>>(data, data + size);
  try {
    const pared::Model model = pared::ParseOnnx(std::as_bytes(std::span(*owner)), owner);
    static_cast<void>(pared::SerializeOnnx(model));
    static_cast<void>(pared::ToText(model));
    static_cast<void>(pared::InferShapes(model));
  } catch (const pared::Error&) {
    // Refusing is right; anything else the sanitizers report.
  }
  return 0;
}
