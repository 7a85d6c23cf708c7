#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "model/text.h"
#include "model/tflite_file.h"
#include "model/tflite_write.h"
#include "passes/registry.h"
#include "passes/tflite_form.h"
#include "tests/fuzz/targets.h"

namespace pared {
namespace {

struct Choice {
  const char *pass, *options;
};

constexpr Choice kChoices[] = {
    {"fold_batch_norm", R"({})"},
    {"fix_shapes", R"({"shapes": {"x": [1, 3, 8, 8]}})"},
    {"magnitude_prune", R"({})"},
    {"magnitude_prune", R"({"pattern": "2:4", "depthwise": true})"},
    {"magnitude_prune", R"({"pattern": "4x1", "scope": "model", "freeze_inputs": true})"},
    {"channel_prune", R"({"multiple_of": 1})"},
    {"quantize_weights", R"({})"},
    {"quantize_weights", R"({"bits": "4", "freeze_inputs": true})"},
    {"cast_fp16", R"({})"},
    {"fold_constants", R"({"freeze_inputs": true})"},
    {"remove_identities", R"({})"},
    {"strip_notes", R"({})"},
    {"fuse_patterns", R"({"opset_max": 20})"},
};

Model Reread(const Model& model) {
  const auto bytes = std::make_shared<const std::string>(SerializeOnnx(model));
  return ParseOnnx(std::as_bytes(std::span(*bytes)), bytes);
}

// A model that a job could be given. Nothing: it is refused.
std::optional<Model> Read(std::string_view text) {
  try {
    const Model model = Reread(ParseText(text));
    InferShapes(model);
    return model;
  } catch (const Error&) {
    return std::nullopt;
  }
}

// A file in order, or a refusal.
void CheckTflite(const Model& model) {
  std::shared_ptr<const std::string> bytes;
  try {
    bytes = std::make_shared<const std::string>(SerializeTflite(TfliteForm(model, {})));
  } catch (const Error& error) {
    PARED_CHECK(error.code() != ErrorCode::kInternal);
    return;
  }
  ReadTflite(std::as_bytes(std::span(*bytes)), bytes, "written");
}

}  // namespace

void FuzzPasses(FuzzInput input) {
  if (input.empty()) return;
  const Choice& choice = kChoices[input[0] % std::size(kChoices)];
  const std::optional<Model> model = Read(TextOf(input).substr(1));
  if (!model) return;
  CheckTflite(*model);
  const PassInfo* pass = FindPass(choice.pass);
  Json options = ParseJson(choice.options);
  options["pass"] = choice.pass;
  PassContext context;
  std::optional<Model> out;
  try {
    out = BindPass(*pass, options, "").run(*model, context);
  } catch (const Error& error) {
    PARED_CHECK(error.code() != ErrorCode::kInternal);
    return;
  }
  // From here on an Error is the pass's fault.
  Verify(*out);
  InferShapes(Reread(*out));
}

}  // namespace pared
