// Runs: one of them, its notes and tags, the model it made; experiments.

#include <utility>

#include "api/files.h"
#include "api/service.h"

namespace pared {
namespace {

constexpr size_t kTextBytesMax = 4'096;
constexpr size_t kTagsMax = 100;

Run Existing(const Service& service, const Request& request) {
  const int64_t id = IdOf(request);
  std::optional<Run> run = service.store.GetRun(id);
  if (!run) throw Error(ErrorCode::kNotFound, "there is no run " + std::to_string(id), "{id}");
  return *std::move(run);
}

std::string TextAt(const Json& value, const std::string& pointer) {
  if (!value.is_string()) throw Error(ErrorCode::kInvalidArgument, "must be a text", pointer);
  std::string text = value.get<std::string>();
  if (text.size() <= kTextBytesMax) return text;
  throw Error(ErrorCode::kInvalidArgument,
              "is longer than " + std::to_string(kTextBytesMax) + " bytes", pointer);
}

std::map<std::string, std::optional<std::string>> TagsOf(const Json& json) {
  if (!json.is_object()) throw Error(ErrorCode::kInvalidArgument, "must be an object", "/tags");
  if (json.size() > kTagsMax) {
    throw Error(ErrorCode::kInvalidArgument, "has more than " + std::to_string(kTagsMax) + " tags",
                "/tags");
  }
  std::map<std::string, std::optional<std::string>> tags;
  for (const auto& [name, value] : json.items()) {
    const std::string pointer = JoinPointer("/tags", name);
    CheckName(name, pointer);
    tags[name] = value.is_null() ? std::nullopt : std::optional(TextAt(value, pointer));
  }
  return tags;
}

const std::string& ArtifactOf(const Run& run) {
  if (run.record.artifact.empty()) {
    const bool is_beaten = run.record.error.is_null() && run.record.lineage.contains("search");
    throw Error(ErrorCode::kNotFound,
                "run " + std::to_string(run.id) +
                    (is_beaten ? "'s model was not kept: others of its search are better; its "
                                 "steps make it again, and \"keep\": \"all\" keeps all"
                               : " made no model"),
                "{id}");
  }
  return run.record.artifact;
}

// What is kept packed is not expanded for a client that has it already.
Response ModelResponse(const Service& service, const Request& request, const std::string& sha256,
                       const std::string& name) {
  if (service.artifacts.Has(sha256)) {
    if (const std::optional<Response> known = NotModified(request, sha256)) return *known;
  }
  const OpenArtifact artifact = service.artifacts.Open(sha256);
  Response response = FileResponse(request, artifact.model, sha256, name);
  response.keeper = artifact.keeper;
  return response;
}

// Why a run has no TensorFlow Lite file.
std::string NoTfliteReason(const RunRecord& run) {
  if (run.chain == "baseline") return "it is the input model; a chain makes one";
  const Json::json_pointer reason("/report/tflite/error/message");
  for (const Json& step : run.reports) {
    if (step.contains(reason)) return step.at(reason).get<std::string>();
  }
  return "its job did not ask for it";
}

Response TfliteResponse(const Service& service, const Request& request, const Run& run,
                        const std::string& name) {
  const Json::json_pointer digest("/tflite_sha256");
  const Json& lineage = run.record.lineage;
  if (lineage.contains(digest)) {
    const std::string sha256 = lineage.at(digest).get<std::string>();
    const auto tflite = service.artifacts.TflitePath(run.record.artifact, sha256);
    if (tflite) return FileResponse(request, *tflite, sha256, name);
  }
  throw Error(ErrorCode::kNotFound,
              "this model is not kept as TensorFlow Lite: " + NoTfliteReason(run.record), "{id}");
}

Response DataResponse(const Service& service, const Request& request, const std::string& sha256) {
  const OpenArtifact artifact = service.artifacts.Open(sha256);
  if (!artifact.data) {
    throw Error(ErrorCode::kNotFound, "this model keeps all its tensors in one file");
  }
  Response response =
      FileResponse(request, *artifact.data, sha256 + "-data", artifact.data->filename().string());
  response.keeper = artifact.keeper;
  return response;
}

}  // namespace

Json RunJson(const Run& run) {
  return {{"id", run.id},
          {"job", run.job},
          {"experiment", run.record.experiment},
          {"model", run.record.model},
          {"chain", run.record.chain},
          {"steps", run.record.steps},
          {"machine", run.record.machine},
          {"artifact", run.record.artifact.empty() ? Json() : Json(run.record.artifact)},
          {"error", run.record.error},
          {"metrics", run.record.metrics},
          {"tags", run.tags},
          {"note", run.note},
          {"created_ms", run.created_ms}};
}

Response ChangeRun(const Service& service, const Request& request) {
  const Json json = ParseJson(request.body);
  if (!json.is_object()) throw Error(ErrorCode::kInvalidArgument, "must be an object", "/");
  RunChange change;
  for (const auto& [name, value] : json.items()) {
    if (name == "note") {
      change.note = TextAt(value, "/note");
    } else if (name == "tags") {
      change.tags = TagsOf(value);
    } else {
      throw Error(ErrorCode::kInvalidArgument, "is no field of a run that can be changed",
                  JoinPointer("", name));
    }
  }
  service.store.ChangeRun(IdOf(request), change);
  return JsonResponse(RunJson(Existing(service, request)));
}

Response DeleteRun(const Service& service, const Request& request) {
  service.store.DeleteRun(IdOf(request));
  return JsonResponse({{"deleted", 1}});
}

Response ListExperiments(const Service& service, const Request&) {
  Json experiments = Json::array();
  for (const ExperimentRecord& experiment : service.store.Experiments()) {
    experiments.push_back({{"name", experiment.name},
                           {"runs", experiment.runs},
                           {"first_ms", experiment.first_ms},
                           {"last_ms", experiment.last_ms}});
  }
  return JsonResponse({{"experiments", std::move(experiments)}});
}

Response DeleteExperiment(const Service& service, const Request& request) {
  return JsonResponse({{"deleted", service.store.DeleteExperiment(request.params.at("name"))}});
}

Response GetRun(const Service& service, const Request& request) {
  const Run run = Existing(service, request);
  Json json = RunJson(run);
  json["reports"] = run.record.reports;
  json["lineage"] = run.record.lineage;
  return JsonResponse(json);
}

Response GetRunModel(const Service& service, const Request& request) {
  const Run run = Existing(service, request);
  const std::string& sha256 = ArtifactOf(run);
  const std::string name = run.record.model + "-" + run.record.chain;
  const std::string form = QueryText(request, "form").value_or("onnx");
  if (form == "packed") {
    const std::optional<std::filesystem::path> packed = service.artifacts.PackedPath(sha256);
    if (packed) return FileResponse(request, *packed, sha256 + "-packed", name + ".packed");
    throw Error(ErrorCode::kNotFound, "this model is not kept packed: its job did not ask for it",
                "{id}");
  }
  if (form == "tflite") return TfliteResponse(service, request, run, name + ".tflite");
  if (form != "onnx") {
    throw Error(ErrorCode::kInvalidArgument, "must be \"onnx\", \"packed\" or \"tflite\"", "?form");
  }
  return ModelResponse(service, request, sha256, name + ".onnx");
}

// An artifact by its name, which a model, a run and a job's spec give.
Response GetArtifact(const Service& service, const Request& request) {
  const std::string& sha256 = request.params.at("sha256");
  return ModelResponse(service, request, sha256, sha256 + ".onnx");
}

Response GetArtifactData(const Service& service, const Request& request) {
  return DataResponse(service, request, request.params.at("sha256"));
}

Response GetRunModelData(const Service& service, const Request& request) {
  const Run run = Existing(service, request);
  return DataResponse(service, request, ArtifactOf(run));
}

}  // namespace pared
