#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "tests/fuzz/targets.h"

namespace pared {

void FuzzTflite(FuzzInput input) {
  // A copy of exactly this size: the address sanitizer sees every read past its end.
  const std::string_view text = TextOf(input);
  auto owner = std::make_shared<const std::vector<char>>(text.begin(), text.end());
  std::string written;
  try {
    written = SerializeOnnx(ParseTflite(std::as_bytes(std::span(*owner)), owner, "file"));
  } catch (const Error& error) {
    PARED_CHECK(!error.message().empty());
    PARED_CHECK(!error.where().empty());
    return;
  }
  auto again = std::make_shared<const std::string>(written);
  PARED_CHECK(SerializeOnnx(ParseOnnx(std::as_bytes(std::span(*again)), again)) == written);
}

}  // namespace pared
