#include "model/tflite.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/joined.h"
#include "model/check_ops.h"
#include "model/infer_shapes.h"
#include "model/mapped_file.h"
#include "model/onnx.h"
#include "model/read_at.h"
#include "model/tflite_file.h"
#include "model/tflite_ops.h"
#include "model/tflite_values.h"

namespace pared {
namespace {

constexpr size_t kNamedMax = 50;

// All at once: who must change the model wants to know them together.
void CheckOperators(const TfliteFile& file) {
  std::vector<std::string> unknown;
  const auto check = [&](const TfliteGraph& graph) {
    for (const TfliteOp& op : graph.ops) {
      const bool is_new = std::ranges::find(unknown, op.type) == unknown.end();
      if (unknown.size() < kNamedMax && !IsTfliteOp(op.type) && is_new) unknown.push_back(op.type);
    }
  };
  check(file.main);
  for (const auto& [number, part] : file.parts) check(part);
  if (unknown.empty()) return;
  if (unknown.size() == kNamedMax) unknown.push_back("...");
  throw Error(ErrorCode::kUnsupported,
              "these TensorFlow Lite operators have no ONNX counterpart here: " + Joined(unknown),
              file.file->where());
}

// As they follow from the graph: the file's own may be those of another batch.
void StateShapes(const TfliteFile& file, Model& model) {
  const auto types = InferShapes(model);  // throws where shapes that are known do not fit
  for (size_t i = 0; i < file.main.outputs.size(); ++i) {
    ValueInfo& output = model.graph.outputs[i];
    const auto type = types.find(output.name);
    if (type != types.end() && type->second.shape) {
      output.shape = type->second.shape;
    } else {
      const auto t = static_cast<size_t>(file.main.outputs[i]);
      output.shape.emplace(file.tensors[t].shape.size());
    }
  }
}

}  // namespace

Model LoadTflite(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  return ParseTflite(file->bytes(), file, path.string());
}

Model ParseTflite(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                  const std::string& where) {
  return ReadAt(where, [&] {
    const TfliteFile file = ReadTflite(bytes, std::move(owner), where);
    CheckOperators(file);
    TfliteValues values(file);
    for (const TfliteOp& op : file.main.ops) AddTfliteOp(values, op);
    Model model = values.Finish();
    Verify(model);
    CheckOps(model);
    StateShapes(file, model);
    return model;
  });
}

bool IsTfliteFile(const std::filesystem::path& path) {
  return IsTflite(MappedFile::Open(path)->bytes());
}

Model LoadModel(const std::filesystem::path& path) {
  return IsTfliteFile(path) ? LoadTflite(path) : LoadOnnx(path);
}

}  // namespace pared
