#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "model/text.h"
#include "tests/fuzz/targets.h"

namespace pared {
namespace {

Model Parse(std::string_view bytes) {
  // A copy of exactly this size: the address sanitizer sees every read past its end.
  auto owner = std::make_shared<const std::vector<char>>(bytes.begin(), bytes.end());
  return ParseOnnx(std::as_bytes(std::span(*owner)), owner);
}

// Null: refused, with a reason and a place.
std::unique_ptr<Model> Read(std::string_view bytes) {
  try {
    return std::make_unique<Model>(Parse(bytes));
  } catch (const Error& error) {
    PARED_CHECK(!error.message().empty());
    PARED_CHECK(!error.where().empty());
    return nullptr;
  }
}

}  // namespace

void FuzzOnnx(FuzzInput input) {
  const std::unique_ptr<Model> model = Read(TextOf(input));
  if (!model) return;
  Verify(*model);  // what was read is in order
  const std::string written = SerializeOnnx(*model);
  PARED_CHECK(SerializeOnnx(Parse(written)) == written);
  PARED_CHECK(!ToText(*model).empty());
  try {
    static_cast<void>(InferShapes(*model));
  } catch (const Error& error) {
    PARED_CHECK(!error.where().empty());
  }
}

}  // namespace pared
