// Batches: submit, list, watch, cancel. What became of them against the last night is in
// batch_report.cc.

#include <filesystem>
#include <string>
#include <utility>

#include "api/service.h"
#include "config/batch_spec.h"
#include "passes/plan.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Refuse(const std::string& pointer, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, pointer);
}

// Fills in the root where there is but one, and says which there are where it is none of them.
void ResolveRoot(const Settings& settings, BatchSpec& spec) {
  std::string roots;
  for (const std::string& root : settings.model_roots) {
    if (root == spec.root) return;
    roots += (roots.empty() ? "" : ", ") + root;
  }
  if (roots.empty()) Refuse("/root", "the daemon has no model_roots in its settings");
  if (spec.root.empty() && settings.model_roots.size() == 1) {
    spec.root = settings.model_roots.front();
    return;
  }
  Refuse("/root", "must be one of the daemon's model_roots: " + roots);
}

// A fault of the job under a rule is the rule's where the rule gave the field.
[[noreturn]] void Repoint(const BatchSpec& spec, size_t rule, const Error& error) {
  const Json given = WriteBatchSpec(spec).at("rules").at(rule);
  const std::string& where = error.where();
  const std::string field = where.empty() ? "" : where.substr(1, where.find('/', 1) - 1);
  const bool is_rules = !field.empty() && given.contains(field) && !given.at(field).is_null();
  throw Error(error.code(), error.message(),
              is_rules ? "/rules/" + std::to_string(rule) + where : where);
}

void CheckJob(const Service& service, const BatchSpec& spec, std::optional<size_t> rule) {
  try {
    CheckJobSpec(service, JobOf(spec, rule, "model"));
  } catch (const Error& error) {
    if (!rule) throw;
    Repoint(spec, *rule, error);
  }
}

Json ItemJson(const BatchItem& item) {
  return {{"path", item.path},
          {"model", item.model},
          {"sha256", item.sha256.empty() ? Json() : Json(item.sha256)},
          {"decision", BatchDecisionName(item.decision)},
          {"reason", item.reason},
          {"job", item.job ? Json(*item.job) : Json()},
          {"job_state", item.job_state.empty() ? Json() : Json(item.job_state)}};
}

}  // namespace

Json BatchJson(const Batch& batch) {
  Json counts = batch.counts;
  if (counts.is_null()) counts = Json::object();
  return {{"id", batch.id},
          {"name", batch.spec.at("name")},
          {"state", BatchStateName(batch.state)},
          {"dry_run", batch.is_dry},
          {"cancel_requested", batch.cancel_requested},
          {"spec", batch.spec},
          {"counts", std::move(counts)},
          {"error", batch.error},
          {"created_ms", batch.created_ms},
          {"scanned_ms", TimeJson(batch.scanned_ms)},
          {"finished_ms", TimeJson(batch.finished_ms)}};
}

Batch ExistingBatch(const Service& service, const Request& request) {
  const BatchId id = IdOf(request);
  std::optional<Batch> batch = service.store.GetBatch(id);
  if (!batch) throw Error(ErrorCode::kNotFound, "there is no batch " + std::to_string(id), "{id}");
  return *std::move(batch);
}

Response SubmitBatch(const Service& service, const Request& request) {
  BatchSpec spec = ReadBatchSpec(ParseJson(request.body));
  ResolveRoot(service.settings, spec);
  CheckJob(service, spec, std::nullopt);
  for (size_t i = 0; i < spec.rules.size(); ++i) CheckJob(service, spec, i);
  const BatchId id = service.store.SubmitBatch(WriteBatchSpec(spec));
  Response response = JsonResponse(BatchJson(*service.store.GetBatch(id)), 201);
  response.headers["location"] = "/v1/batches/" + std::to_string(id);
  return response;
}

Response ListBatches(const Service& service, const Request& request) {
  BatchQuery query;
  query.name = QueryText(request, "name");
  query.limit = LimitOf(request);
  query.after = QueryInteger(request, "after", {0}, 0);
  Json batches = Json::array();
  for (const Batch& batch : service.store.Batches(query)) batches.push_back(BatchJson(batch));
  return JsonResponse(Page("batches", std::move(batches), query.limit));
}

Response GetBatch(const Service& service, const Request& request) {
  const int64_t wait_s = QueryInteger(request, "wait", {0, service.settings.wait_s_max}, 0);
  const Batch batch = ExistingBatch(service, request);
  Json json = BatchJson(batch);
  json["items"] = Json::array();
  for (const BatchItem& item : service.store.BatchItems(batch.id)) {
    json["items"].push_back(ItemJson(item));
  }
  Response response = JsonResponse(json);
  response.pending = !batch.finished_ms && request.waited_ms < wait_s * 1000;
  return response;
}

Response CancelBatch(const Service& service, const Request& request) {
  service.store.CancelBatch(IdOf(request));
  return JsonResponse(BatchJson(ExistingBatch(service, request)), 202);
}

}  // namespace pared
