// Models: register and list.

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>
#include <vector>

#include "api/files.h"
#include "api/service.h"
#include "config/sha256.h"
#include "model/graph.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "storage/uploads.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr uintmax_t kSourceBytesMax = 4 << 20;

constexpr size_t kDataFilesMax = 10'000;

struct DataFile {
  std::string name;
  std::string upload;
};

// What a JSON body registers: a file of the daemon's machine, or uploads.
struct Source {
  std::string path;
  std::string upload;
  std::vector<DataFile> data;
};

void Fields(FieldVisitor& f, DataFile& d) {
  f.Required();
  f.Text("name", d.name, TextRule::kAny, "The file's name, as the model refers to it.");
  f.Required();
  f.Text("upload", d.upload, TextRule::kName, "Its SHA-256: an upload that has arrived whole.");
}

void Fields(FieldVisitor& f, Source& s) {
  f.Text("path", s.path, TextRule::kAny, "A model file below one of the daemon's model roots.");
  f.Text("upload", s.upload, TextRule::kName,
         "In place of a path: the SHA-256 of an upload that has arrived whole.");
  f.List("data", s.data, kDataFilesMax, "The files beside it that the upload keeps tensors in.");
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

Source ReadSource(const fs::path& body) {
  std::error_code error;
  if (fs::file_size(body, error) > kSourceBytesMax) {
    throw Error(ErrorCode::kInvalidArgument,
                "a JSON body is at most " + std::to_string(kSourceBytesMax) + " bytes long");
  }
  std::ostringstream text;
  text << std::ifstream(body, std::ios::binary).rdbuf();
  Source source;
  ReadFields(ParseJson(text.str()), "", source);
  if (source.path.empty() == source.upload.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "names a path or an upload, one of the two", "/");
  }
  if (!source.data.empty() && source.upload.empty()) {
    throw Error(ErrorCode::kInvalidArgument, "goes with an upload; a path finds its data itself",
                "/data");
  }
  return source;
}

// The file that is meant, with every symbolic link followed before it is judged.
fs::path PathBelowRoots(const Service& service, const std::string& named) {
  std::error_code error;
  const fs::path path = fs::canonical(named, error);
  for (const std::string& root : service.settings.model_roots) {
    if (!error && IsBelow(path, fs::canonical(root, error)) && !error) return path;
  }
  throw Error(ErrorCode::kInvalidArgument, "is no file below one of the daemon's model roots",
              "/path");
}

// Beyond these, a file system cannot be asked whether the file is there.
void CheckLength(const fs::path& name, const std::string& pointer) {
  constexpr size_t kPartBytesMax = 255, kBytesMax = 1'024;
  bool fits = name.native().size() <= kBytesMax;
  for (const fs::path& part : name) fits = fits && part.native().size() <= kPartBytesMax;
  if (fits) return;
  throw Error(ErrorCode::kInvalidArgument,
              "must have at most " + std::to_string(kPartBytesMax) +
                  " bytes from one '/' to the next, and " + std::to_string(kBytesMax) + " in all",
              pointer);
}

// Uploads in the places that the model knows them by. They go back at the end of the scope unless
// they were kept: a model that is refused, for want of a file perhaps, need not be sent again.
class Gathered {
 public:
  explicit Gathered(const Service& service, fs::path folder)
      : uploads_(service.settings.UploadsDir()), folder_(std::move(folder)) {}
  ~Gathered() {
    for (const auto& [sha256, path] : moved_) {
      std::error_code gone;
      if (!is_kept_ && fs::exists(path, gone)) uploads_.MoveBack(sha256, path);
    }
  }
  Gathered(const Gathered&) = delete;
  Gathered& operator=(const Gathered&) = delete;

  fs::path Add(const std::string& sha256, const fs::path& name, const std::string& pointer) {
    CheckLength(name, pointer + "/name");
    bool is_plain = name.is_relative() && name.has_filename();
    for (const fs::path& part : name) is_plain = is_plain && part != ".." && part != ".";
    const fs::path path = folder_ / name;
    if (!is_plain || name.string().find('\0') != std::string::npos || fs::exists(path)) {
      throw Error(ErrorCode::kInvalidArgument,
                  "must be a file name of its own, beside the model or in a folder beneath it",
                  pointer + "/name");
    }
    if (!IsSha256(sha256)) {
      throw Error(ErrorCode::kInvalidArgument, "must be a SHA-256, 64 hexadecimal digits, 0 to f",
                  pointer + "/upload");
    }
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    if (error) {
      throw Error(ErrorCode::kInvalidArgument, "is beneath a file: " + error.message(),
                  pointer + "/name");
    }
    uploads_.MoveOut(sha256, path);
    moved_.emplace_back(sha256, path);
    return path;
  }

  void Keep() { is_kept_ = true; }

 private:
  const Uploads uploads_;
  const fs::path folder_;
  std::vector<std::pair<std::string, fs::path>> moved_;
  bool is_kept_ = false;
};

bool IsJson(const Request& request) {
  const auto type = request.headers.find("content-type");
  return type != request.headers.end() && type->second.starts_with("application/json");
}

Response Register(const Service& service, const std::string& name, const fs::path& file) {
  Verify(LoadOnnx(file));
  const Artifact artifact = service.artifacts.Put(file);
  const bool is_new = !service.store.GetModel(name).has_value();
  service.store.PutModel(name, artifact.sha256, artifact.bytes);
  Response response = JsonResponse(RecordJson(*service.store.GetModel(name)), is_new ? 201 : 200);
  response.headers["location"] = "/v1/models/" + name;
  return response;
}

// A file of one of the formats that are read; what is no ONNX is stored as ONNX.
Response RegisterUpload(const Service& service, const std::string& name, const fs::path& file) {
  if (!IsTfliteFile(file)) return Register(service, name, file);
  fs::path converted = file;
  converted += ".onnx";
  SaveOnnx(LoadTflite(file), converted);
  return Register(service, name, converted);
}

}  // namespace

Response PutModel(const Service& service, const Request& request) {
  const std::string& name = NameOf(request);
  CheckDigest(request);
  if (!IsJson(request)) return RegisterUpload(service, name, request.upload);
  const Source source = ReadSource(request.upload);
  const fs::path folder = request.upload.parent_path();
  const fs::path whole = folder / "registered.onnx";
  if (!source.path.empty()) {
    // Written anew, not linked: the file stays its owner's, and all its external data comes along.
    SaveOnnx(LoadModel(PathBelowRoots(service, source.path)), whole);
    return Register(service, name, whole);
  }
  fs::create_directory(folder / "uploads");
  Gathered gathered(service, folder / "uploads");
  const fs::path model = gathered.Add(source.upload, "model.onnx", "");
  for (size_t i = 0; i < source.data.size(); ++i) {
    gathered.Add(source.data[i].upload, source.data[i].name, "/data/" + std::to_string(i));
  }
  // With data files written anew: an artifact has at most one.
  if (!source.data.empty()) SaveOnnx(LoadOnnx(model), whole);
  Response response =
      source.data.empty() ? RegisterUpload(service, name, model) : Register(service, name, whole);
  gathered.Keep();
  return response;
}

Response DeleteModel(const Service& service, const Request& request) {
  service.store.DeleteModel(NameOf(request));
  return JsonResponse({{"deleted", 1}});
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
