// The entry points for reading: files, the checks around the message, foreign exceptions.

#include <set>
#include <string_view>

#include "base/error.h"
#include "model/check_ops.h"
#include "model/infer_shapes.h"
#include "model/mapped_file.h"
#include "model/onnx.h"
#include "model/onnx_read.h"
#include "model/read_at.h"
#include "model/tflite_file.h"

namespace pared {
namespace {

constexpr int64_t kIrVersionMin = 3;
constexpr int64_t kIrVersionMax = 12;
constexpr int64_t kOpsetMin = 7;
constexpr int64_t kOpsetMax = 24;
// Protobuf's own writers stop at 2 GB; lengths within a message have 32 bits.
constexpr size_t kMessageBytesMax = UINT32_MAX;

std::string_view ViewOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Names the formats that people mistake for ONNX.
void CheckFormat(std::string_view bytes, const std::string& where) {
  const char* format = nullptr;
  if (bytes.empty()) format = "an empty file";
  if (bytes.starts_with("PK\x03\x04")) format = "a zip archive; take the model out of it first";
  if (bytes.starts_with("\x1F\x8B")) format = "a gzip file; unpack it first";
  if (bytes.starts_with("\x28\xB5\x2F\xFD")) format = "a zstd file; unpack it first";
  if (bytes.starts_with("\xFD\x37zXZ")) format = "an xz file; unpack it first";
  if (bytes.starts_with("BZh")) format = "a bzip2 file; unpack it first";
  // A pickle's first opcode, PROTO, and its version.
  if (bytes.size() > 1 && bytes[0] == '\x80' && bytes[1] >= 2 && bytes[1] <= 5) {
    format = "a Python pickle, which is never opened: it can run code";
  }
  if (bytes.starts_with("\x89HDF")) format = "an HDF5 file";
  if (bytes.starts_with("{")) format = "JSON";
  if (bytes.size() > 8 && bytes.substr(4, 4) == "TFL3") format = "a TensorFlow Lite model";
  if (bytes.starts_with("version https://git-lfs")) format = "a Git LFS pointer, not its file";
  if (format == nullptr) return;
  throw Error(ErrorCode::kInvalidArgument, std::string("not an ONNX model: this is ") + format,
              where);
}

void CheckVersions(const Model& model, const std::string& where) {
  if (model.ir_version < kIrVersionMin || model.ir_version > kIrVersionMax) {
    throw Error(ErrorCode::kUnsupported,
                "IR version " + std::to_string(model.ir_version) + "; versions " +
                    std::to_string(kIrVersionMin) + " to " + std::to_string(kIrVersionMax) +
                    " are supported",
                where);
  }
  for (const auto& [domain, version] : model.opsets) {
    if (!domain.empty() && domain != "ai.onnx") continue;
    if (version >= kOpsetMin && version <= kOpsetMax) continue;
    throw Error(ErrorCode::kUnsupported,
                "opset " + std::to_string(version) + "; opsets " + std::to_string(kOpsetMin) +
                    " to " + std::to_string(kOpsetMax) + " are supported",
                where);
  }
}

// The message as it is: CheckVersions and what follows look at the model itself.
Model ReadMessage(std::span<const std::byte> bytes, TensorSource& source,
                  const std::string& where) {
  CheckFormat(ViewOf(bytes), where);
  if (bytes.size() > kMessageBytesMax) {
    throw Error(ErrorCode::kInvalidArgument,
                "an ONNX message has at most 4 GB; larger models keep their tensors in external "
                "data files",
                where);
  }
  return ReadAt(where, [&] { return ReadModel(ViewOf(bytes), source); });
}

Model Parse(std::span<const std::byte> bytes, TensorSource source, const std::string& where) {
  Model model = ReadMessage(bytes, source, where);
  return ReadAt(where, [&] {
    CheckVersions(model, where);
    SortNodes(model.graph);
    Verify(model);
    CheckOps(model);
    InferShapes(model);  // throws where shapes that are known do not fit
    return std::move(model);
  });
}

TensorSource SourceOf(std::shared_ptr<const MappedFile> file, const std::filesystem::path& path) {
  const std::filesystem::path folder = path.parent_path();
  return {.owner = std::move(file),
          .kind = TensorSource::Kind::kMappedFile,
          .folder = folder.empty() ? "." : folder,
          .external = {}};
}

}  // namespace

Model LoadOnnx(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  return Parse(file->bytes(), SourceOf(file, path), path.string());
}

std::vector<std::filesystem::path> ModelFiles(const std::filesystem::path& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::Open(path);
  if (IsTflite(file->bytes())) return {path};
  TensorSource source = SourceOf(file, path);
  ReadMessage(file->bytes(), source, path.string());
  std::vector<std::filesystem::path> files = {path};
  std::set<std::filesystem::path> seen = {path.lexically_normal()};
  for (const auto& [location, unused] : source.external) {
    std::filesystem::path external = path.parent_path() / location;
    if (seen.insert(external.lexically_normal()).second) files.push_back(std::move(external));
  }
  return files;
}

Model ParseOnnx(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                const std::filesystem::path& folder) {
  return Parse(bytes,
               TensorSource{.owner = std::move(owner),
                            .kind = TensorSource::Kind::kMemory,
                            .folder = folder,
                            .external = {}},
               "model");
}

Tensor ParseTensorProto(std::span<const std::byte> bytes, std::string& name) {
  // The caller's bytes need not outlive the tensor.
  auto owner = std::make_shared<const std::vector<std::byte>>(bytes.begin(), bytes.end());
  TensorSource source{
      .owner = owner, .kind = TensorSource::Kind::kMemory, .folder = {}, .external = {}};
  return ReadAt("tensor", [&] {
    NamedTensor read = ReadTensor(ViewOf(*owner), source, "tensor");
    name = std::move(read.name);
    return std::move(read.tensor);
  });
}

}  // namespace pared
