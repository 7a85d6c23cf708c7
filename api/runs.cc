// Runs: history, the models they made, the front.

#include <utility>

#include "api/service.h"

namespace pared {
namespace {

Run Existing(const Service& service, const Request& request) {
  const int64_t id = IdOf(request);
  std::optional<Run> run = service.store.GetRun(id);
  if (!run) throw Error(ErrorCode::kNotFound, "there is no run " + std::to_string(id), "{id}");
  return *std::move(run);
}

RunQuery QueryOf(const Request& request) {
  RunQuery query;
  query.experiment = QueryText(request, "experiment");
  query.model = QueryText(request, "model");
  query.chain = QueryText(request, "chain");
  if (request.query.contains("job")) query.job = QueryInteger(request, "job", {1}, 0);
  query.limit = LimitOf(request);
  query.after = QueryInteger(request, "after", {0}, 0);
  return query;
}

// A file of an artifact. Its bytes never change, so its name is as good as they are to a cache.
Response FileResponse(const Request& request, const std::filesystem::path& file,
                      const std::string& tag, const std::string& name) {
  Response response;
  const std::string quoted_tag = "\"" + tag + "\"";
  response.headers["etag"] = quoted_tag;
  response.headers["cache-control"] = "private, max-age=31536000, immutable";
  const auto known = request.headers.find("if-none-match");
  if (known != request.headers.end() && known->second.find(quoted_tag) != std::string::npos) {
    response.status = 304;
    return response;
  }
  response.type = "application/octet-stream";
  response.headers["content-disposition"] = "attachment; filename=\"" + name + "\"";
  response.file = file;
  return response;
}

const std::string& ArtifactOf(const Run& run) {
  if (run.record.artifact.empty()) {
    throw Error(ErrorCode::kNotFound, "run " + std::to_string(run.id) + " made no model", "{id}");
  }
  return run.record.artifact;
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
          {"created_ms", run.created_ms}};
}

Response ListRuns(const Service& service, const Request& request) {
  const RunQuery query = QueryOf(request);
  Json runs = Json::array();
  for (const Run& run : service.store.Runs(query)) runs.push_back(RunJson(run));
  return JsonResponse(Page("runs", std::move(runs), query.limit));
}

Response GetRun(const Service& service, const Request& request) {
  const Run run = Existing(service, request);
  Json json = RunJson(run);
  json["reports"] = run.record.reports;
  return JsonResponse(json);
}

Response GetRunModel(const Service& service, const Request& request) {
  const Run run = Existing(service, request);
  const std::string& sha256 = ArtifactOf(run);
  return FileResponse(request, service.artifacts.Path(sha256), sha256,
                      run.record.model + "-" + run.record.chain + ".onnx");
}

Response GetRunModelData(const Service& service, const Request& request) {
  const Run run = Existing(service, request);
  const std::string& sha256 = ArtifactOf(run);
  const std::optional<std::filesystem::path> file = service.artifacts.DataPath(sha256);
  if (!file) {
    throw Error(ErrorCode::kNotFound, "this model keeps all its tensors in one file", "{id}");
  }
  return FileResponse(request, *file, sha256 + "-data", file->filename().string());
}

Response GetPareto(const Service& service, const Request& request) {
  const std::string cost = QueryText(request, "cost").value_or("size_bytes");
  const std::string quality = QueryText(request, "quality").value_or("top1");
  CheckName(cost, "?cost");
  CheckName(quality, "?quality");
  Json runs = Json::array();
  for (const Run& run : service.store.ParetoFront(QueryOf(request), cost, quality)) {
    runs.push_back(RunJson(run));
  }
  return JsonResponse({{"cost", cost}, {"quality", quality}, {"runs", std::move(runs)}});
}

}  // namespace pared
