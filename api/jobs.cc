// Jobs: submit, list, watch, cancel.

#include <set>
#include <string>
#include <utility>

#include "api/service.h"
#include "base/joined.h"
#include "config/job_spec.h"
#include "passes/plan.h"
#include "passes/search_space.h"
#include "storage/job_logs.h"

namespace pared {
namespace {

constexpr size_t kIdempotencyKeyBytesMax = 255;

[[noreturn]] void Refuse(const std::string& pointer, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, pointer);
}

// What there is in its place: the nearest, or all where they are few.
std::string Alternatives(const std::string& name, const std::vector<std::string>& names) {
  constexpr size_t kListedMax = 12;
  const std::string hint = DidYouMean(name, names);
  if (!hint.empty()) return hint;
  if (names.empty() || names.size() > kListedMax) return "";
  return "; there are: " + Joined(names);
}

// Pins the spec to the bytes that the model's name stands for now.
void ResolveModel(const Service& service, JobSpec& spec) {
  const std::optional<ModelRecord> model = service.store.GetModel(spec.model);
  if (!model) {
    std::vector<std::string> names;
    for (const ModelRecord& other : service.store.Models()) names.push_back(other.name);
    Refuse("/model",
           "no model is registered as \"" + spec.model + "\"" + Alternatives(spec.model, names));
  }
  // Earlier bytes of the name, as long as they are kept: a run can be done again.
  if (spec.model_sha256.empty()) spec.model_sha256 = model->sha256;
  if (spec.model_sha256 == model->sha256 || service.artifacts.Has(spec.model_sha256)) return;
  Refuse("/model_sha256", "no artifact has these bytes any more; the model registered as \"" +
                              spec.model + "\" has " + model->sha256);
}

void CheckDataset(const Service& service, const std::string& name, const std::string& pointer) {
  if (name.empty() || HasDataset(service, name)) return;
  const std::vector<std::string> names = DatasetNames(service);
  Refuse(pointer,
         "there is no dataset \"" + name + "\"" +
             (names.empty() ? ": the daemon's datasets_dir has none" : Alternatives(name, names)));
}

// What the daemon would never grant is refused before the job waits for it.
void CheckLimits(const Service& service, const LimitsSpec& limits) {
  const int64_t memory_mb = service.settings.MemoryTotalMb();
  if (limits.memory_mb > memory_mb) {
    Refuse("/limits/memory_mb", "this daemon has " + std::to_string(memory_mb) +
                                    " MB for all jobs (memory_total_mb), is " +
                                    std::to_string(limits.memory_mb));
  }
  if (limits.time_s > service.settings.time_s_max) {
    Refuse("/limits/time_s", "this daemon lets no job run longer than " +
                                 std::to_string(service.settings.time_s_max) +
                                 " s (time_s_max), is " + std::to_string(limits.time_s));
  }
}

// A search that its job's limit would end before its budget does.
void CheckSearch(const Service& service, const JobSpec& spec) {
  if (!spec.search) return;
  MakeSearchSpace(spec);
  const int64_t time_s = spec.limits.time_s == 0 ? service.settings.time_s : spec.limits.time_s;
  if (spec.search->budget.seconds <= time_s) return;
  Refuse("/search/budget/seconds", "is beyond the job's time limit of " + std::to_string(time_s) +
                                       " s: set /limits/time_s, at most " +
                                       std::to_string(service.settings.time_s_max));
}

void CheckDatasets(const Service& service, const JobSpec& spec) {
  CheckDataset(service, spec.calibration.dataset, "/calibration/dataset");
  CheckDataset(service, spec.evaluate.dataset, "/evaluate/dataset");
}

// The spec in its canonical form, each pass with all its options.
Json Canonical(const Service& service, const Json& json) {
  JobSpec spec = BindPasses(ReadJobSpec(json));
  CheckSearch(service, spec);
  CheckLimits(service, spec.limits);
  ResolveModel(service, spec);
  CheckDatasets(service, spec);
  return WriteJobSpec(spec);
}

Json JobJson(const Job& job) {
  return {{"id", job.id},
          {"state", JobStateName(job.state)},
          {"tries", job.tries},
          {"cancel_requested", job.cancel_requested},
          {"spec", job.spec},
          {"progress", job.progress},
          {"error", job.error},
          {"requeues", job.requeues},
          {"requeue", job.requeue},
          {"search", job.search},
          {"created_ms", job.created_ms},
          {"started_ms", TimeJson(job.started_ms)},
          {"finished_ms", TimeJson(job.finished_ms)}};
}

// Of a search: the runs of its front, and its best.
std::set<int64_t> ShownRuns(const Job& job) {
  std::set<int64_t> runs;
  if (job.search.is_null()) return runs;
  for (const Json& entry : job.search.at("front")) runs.insert(entry.at("run").get<int64_t>());
  if (job.search.at("best").is_object()) runs.insert(job.search["best"]["run"].get<int64_t>());
  return runs;
}

Job Existing(const Service& service, JobId id) {
  std::optional<Job> job = service.store.GetJob(id);
  if (!job) throw Error(ErrorCode::kNotFound, "there is no job " + std::to_string(id), "{id}");
  return *std::move(job);
}

}  // namespace

void CheckJobSpec(const Service& service, const JobSpec& spec) {
  MakePlan(spec);
  CheckSearch(service, spec);
  CheckLimits(service, spec.limits);
  CheckDatasets(service, spec);
}

Response SubmitJob(const Service& service, const Request& request) {
  const Json spec = Canonical(service, ParseJson(request.body));
  const auto key = request.headers.find("idempotency-key");
  if (key != request.headers.end() && key->second.size() > kIdempotencyKeyBytesMax) {
    Refuse("idempotency-key",
           "is longer than " + std::to_string(kIdempotencyKeyBytesMax) + " bytes");
  }
  const JobId id = key == request.headers.end() ? service.store.Submit(spec)
                                                : service.store.SubmitOnce(spec, key->second);
  Response response = JsonResponse(JobJson(Existing(service, id)), 201);
  response.headers["location"] = "/v1/jobs/" + std::to_string(id);
  return response;
}

Response ListJobs(const Service& service, const Request& request) {
  JobQuery query;
  if (const std::optional<std::string> state = QueryText(request, "state")) {
    query.state = JobStateOf(*state);
    if (!query.state) {
      Refuse("?state",
             "must be one of queued, running, succeeded, failed, cancelled, goal_not_met, is \"" +
                 *state + "\"");
    }
  }
  query.limit = LimitOf(request);
  query.after = QueryInteger(request, "after", {0}, 0);
  const std::string order = QueryText(request, "order").value_or("asc");
  if (order != "asc" && order != "desc")
    Refuse("?order", "must be asc or desc, is \"" + order + "\"");
  query.is_newest_first = order == "desc";
  Json jobs = Json::array();
  for (const Job& job : service.store.Jobs(query)) jobs.push_back(JobJson(job));
  return JsonResponse(Page("jobs", std::move(jobs), query.limit));
}

Response GetJob(const Service& service, const Request& request) {
  const int64_t wait_s = QueryInteger(request, "wait", {0, service.settings.wait_s_max}, 0);
  const Job job = Existing(service, IdOf(request));
  Json json = JobJson(job);
  json["runs"] = Json::array();
  RunQuery query;
  query.job = job.id;
  const auto chains = static_cast<int64_t>(kChainsMax);
  query.limit = (job.search.is_null() ? chains : kCandidatesMax) + 1;  // and the baseline
  const std::set<int64_t> shown = ShownRuns(job);
  for (const Run& run : service.store.Runs(query)) {
    if (job.search.is_null() || shown.contains(run.id) || run.record.chain == "baseline") {
      json["runs"].push_back(RunJson(run));
    }
  }
  Response response = JsonResponse(json);
  response.pending = !HasEnded(job.state) && request.waited_ms < wait_s * 1000;
  return response;
}

// The best so far, while the job runs, too.
Response GetJobModel(const Service& service, const Request& request) {
  const Job job = Existing(service, IdOf(request));
  if (job.search.is_object() && job.search.at("best").is_object()) {
    Request of_run = request;
    of_run.params["id"] = std::to_string(job.search.at("best").at("run").get<int64_t>());
    return GetRunModel(service, of_run);
  }
  const Json best = job.progress.is_object() ? job.progress.value("best", Json()) : Json();
  RunQuery query;
  query.job = job.id;
  for (const Run& run : service.store.Runs(query)) {
    if (best != run.record.chain) continue;
    Request of_run = request;
    of_run.params["id"] = std::to_string(run.id);
    return GetRunModel(service, of_run);
  }
  throw Error(ErrorCode::kNotFound, "job " + std::to_string(job.id) + " has made no model yet",
              "{id}");
}

Response GetJobLog(const Service& service, const Request& request) {
  const Job job = Existing(service, IdOf(request));
  const int64_t after = QueryInteger(request, "after", {0}, 0);
  const JobLogPart part = JobLogs(service.settings.LogsDir()).Read(job.id, after);
  Response response;
  response.type = "text/plain; charset=utf-8";
  response.body = part.text;
  response.headers["x-next-after"] = std::to_string(part.next);
  return response;
}

Response CancelJob(const Service& service, const Request& request) {
  const JobId id = IdOf(request);
  service.store.RequestCancel(id);
  return JsonResponse(JobJson(Existing(service, id)), 202);
}

}  // namespace pared
