// Models: register and list.

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "api/service.h"
#include "model/graph.h"
#include "model/onnx.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kPathBodyBytesMax = 64 << 10;

struct PathBody {
  std::string path;
};

void Fields(FieldVisitor& f, PathBody& b) {
  f.Required();
  f.Text("path", b.path, TextRule::kAny, "A model file below one of the daemon's model roots.");
}

const std::string& NameOf(const Request& request) {
  const std::string& name = request.params.at("name");
  CheckName(name, "{name}");
  return name;
}

Json RecordJson(const ModelRecord& model) {
  return {{"name", model.name},
          {"sha256", model.sha256},
          {"bytes", model.bytes},
          {"created_ms", model.created_ms}};
}

// [1, "N", -1]: a size, its symbol, or neither known.
Json ShapeJson(const std::vector<Dim>& shape) {
  Json json = Json::array();
  for (const Dim& dim : shape) {
    json.push_back(dim.value < 0 && !dim.param.empty() ? Json(dim.param) : Json(dim.value));
  }
  return json;
}

Json ValuesJson(const std::vector<ValueInfo>& values) {
  Json json = Json::array();
  for (const ValueInfo& value : values) {
    json.push_back({{"name", value.name},
                    {"dtype", DTypeName(value.dtype)},
                    {"shape", value.shape ? ShapeJson(*value.shape) : Json()}});
  }
  return json;
}

bool IsBelow(const fs::path& path, const fs::path& root) {
  const fs::path relative = path.lexically_relative(root);
  return !relative.empty() && *relative.begin() != "..";
}

// The file that a body {"path": ...} names, with every symbolic link followed before it is judged.
fs::path PathBelowRoots(const Service& service, const fs::path& body) {
  std::error_code error;
  if (fs::file_size(body, error) > kPathBodyBytesMax) {
    throw Error(ErrorCode::kInvalidArgument, "a JSON body is at most 64 KiB long");
  }
  std::ostringstream text;
  text << std::ifstream(body, std::ios::binary).rdbuf();
  PathBody options;
  ReadFields(ParseJson(text.str()), "", options);
  const fs::path path = fs::canonical(options.path, error);
  for (const std::string& root : service.settings.model_roots) {
    if (!error && IsBelow(path, fs::canonical(root, error)) && !error) return path;
  }
  throw Error(ErrorCode::kInvalidArgument, "is no file below one of the daemon's model roots",
              "/path");
}

bool IsJson(const Request& request) {
  const auto type = request.headers.find("content-type");
  return type != request.headers.end() && type->second.starts_with("application/json");
}

}  // namespace

Response PutModel(const Service& service, const Request& request) {
  const std::string& name = NameOf(request);
  fs::path file = request.upload;
  if (IsJson(request)) {
    // Written anew, not linked: the file stays its owner's, and all its external data comes along.
    const fs::path source = PathBelowRoots(service, request.upload);
    file = request.upload.parent_path() / "registered.onnx";
    SaveOnnx(LoadOnnx(source), file);
  }
  Verify(LoadOnnx(file));
  const Artifact artifact = service.artifacts.Put(file);
  const bool is_new = !service.store.GetModel(name).has_value();
  service.store.PutModel(name, artifact.sha256, artifact.bytes);
  Response response = JsonResponse(RecordJson(*service.store.GetModel(name)), is_new ? 201 : 200);
  response.headers["location"] = "/v1/models/" + name;
  return response;
}

Response ListModels(const Service& service, const Request&) {
  Json models = Json::array();
  for (const ModelRecord& model : service.store.Models()) models.push_back(RecordJson(model));
  return JsonResponse({{"models", models}});
}

Response GetModel(const Service& service, const Request& request) {
  const std::optional<ModelRecord> record = service.store.GetModel(NameOf(request));
  if (!record) throw Error(ErrorCode::kNotFound, "there is no such model", "{name}");
  const OpenArtifact artifact = service.artifacts.Open(record->sha256);
  const Model model = LoadOnnx(artifact.model);
  Json json = RecordJson(*record);
  json["inputs"] = ValuesJson(model.graph.inputs);
  json["outputs"] = ValuesJson(model.graph.outputs);
  json["nodes"] = model.graph.nodes.size();
  return JsonResponse(json);
}

}  // namespace pared
