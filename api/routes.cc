#include "api/routes.h"

#include <utility>

#include "api/web.h"

namespace pared {
namespace {

constexpr QueryParameter kLimit = {"limit", "At most so many, 1 to 1000; 100 where it is absent."};
constexpr QueryParameter kAfter = {"after", "Only what has a greater id: the last one of a page."};
constexpr QueryParameter kExperiment = {"experiment", "Only runs of this experiment."};
constexpr QueryParameter kModel = {"model", "Only runs that started from this model."};
constexpr QueryParameter kChain = {"chain", "Only runs of chains with this name."};
constexpr QueryParameter kJob = {"job", "Only runs of this job."};
constexpr QueryParameter kFilter = {"filter",
                                    "Only runs that it matches, such as: top1_drop < 0.01 and "
                                    "(size_ratio <= 0.3 or tags.keep = \"yes\")"};

using ServiceHandler = Response (*)(const Service&, const Request&);

Handler On(const Service& service, ServiceHandler handler) {
  return [&service, handler](const Request& request) { return handler(service, request); };
}

}  // namespace

std::vector<Route> MakeRoutes(const Service& s) {
  return {
      {Verb::kPost, "/v1/jobs", "Submits a job.", Body::kJson, {}, On(s, SubmitJob)},
      {Verb::kGet,
       "/v1/jobs",
       "Lists jobs, oldest first.",
       Body::kNone,
       {{"state", "queued, running, succeeded, failed or cancelled."}, kLimit, kAfter},
       On(s, ListJobs)},
      {Verb::kGet,
       "/v1/jobs/{id}",
       "One job.",
       Body::kNone,
       {{"wait", "Seconds to wait for the job's end before the answer."}},
       On(s, GetJob)},
      {Verb::kGet,
       "/v1/jobs/{id}/events",
       "Server-sent events: the job's state and progress until it ends.",
       Body::kNone,
       {},
       On(s, WatchJob)},
      {Verb::kGet,
       "/v1/events",
       "Server-sent events of all jobs.",
       Body::kNone,
       {},
       On(s, WatchJobs)},
      {Verb::kDelete, "/v1/jobs/{id}", "Cancels a job.", Body::kNone, {}, On(s, CancelJob)},

      {Verb::kPut,
       "/v1/models/{name}",
       "Registers the ONNX file in the body.",
       Body::kUpload,
       {},
       On(s, PutModel)},
      {Verb::kGet, "/v1/models", "Lists models by name.", Body::kNone, {}, On(s, ListModels)},
      {Verb::kGet, "/v1/models/{name}", "One model.", Body::kNone, {}, On(s, GetModel)},

      {Verb::kGet,
       "/v1/runs",
       "Lists runs, oldest first.",
       Body::kNone,
       {kExperiment,
        kModel,
        kChain,
        kJob,
        kFilter,
        {"sort", "Fields with commas between, '-' before one for the greatest first; else by id."},
        {"columns", "Fields with commas between: only these of each run."},
        {"count", "1: say how many runs match on all pages."},
        {"format", "json, jsonl or csv."},
        kLimit,
        kAfter},
       On(s, ListRuns)},
      {Verb::kGet, "/v1/runs/{id}", "One run.", Body::kNone, {}, On(s, GetRun)},
      {Verb::kPatch,
       "/v1/runs/{id}",
       "Sets the note and tags of a run; a tag set to null is removed.",
       Body::kJson,
       {},
       On(s, ChangeRun),
       "run_change"},
      {Verb::kDelete, "/v1/runs/{id}", "Deletes a run.", Body::kNone, {}, On(s, DeleteRun)},
      {Verb::kGet,
       "/v1/runs/{id}/model",
       "The ONNX file that a run made.",
       Body::kNone,
       {{"form", "onnx, or packed where the job asked for that form; `pared unpack` expands it."}},
       On(s, GetRunModel)},
      {Verb::kGet,
       "/v1/runs/{id}/model/data",
       "The tensors that its model keeps in a second file.",
       Body::kNone,
       {},
       On(s, GetRunModelData)},
      {Verb::kGet,
       "/v1/pareto",
       "The runs that no other beats in both cost and quality.",
       Body::kNone,
       {{"cost", "The metric to have little of; size_bytes where it is absent."},
        {"quality", "The metric to have much of; top1 where it is absent."},
        {"objectives", "In place of these two: FIELD:min or FIELD:max, with commas between."},
        {"dominated", "1: with the runs that another beats."},
        kExperiment,
        kModel,
        kChain,
        kJob,
        kFilter},
       On(s, GetPareto)},
      {Verb::kGet,
       "/v1/compare",
       "What differs between runs.",
       Body::kNone,
       {{"runs", "2 to 16 ids with commas between."}},
       On(s, CompareRuns)},
      {Verb::kGet,
       "/v1/experiments",
       "Lists experiments by name.",
       Body::kNone,
       {},
       On(s, ListExperiments)},
      {Verb::kDelete,
       "/v1/experiments/{name}",
       "Deletes all runs of an experiment.",
       Body::kNone,
       {},
       On(s, DeleteExperiment)},

      {Verb::kGet,
       "/v1/passes",
       "The passes, with their options.",
       Body::kNone,
       {},
       On(s, ListPasses)},
      {Verb::kGet, "/v1/datasets", "The datasets.", Body::kNone, {}, On(s, ListDatasets)},
      {Verb::kGet, "/v1/datasets/{name}", "One dataset.", Body::kNone, {}, On(s, GetDataset)},
      {Verb::kGet,
       "/healthz",
       "Whether the daemon serves; its version and instruction set.",
       Body::kNone,
       {},
       On(s, GetHealth)},
      {Verb::kGet,
       "/readyz",
       "Whether the store can be written and the disk has room.",
       Body::kNone,
       {},
       On(s, GetReady)},
      {Verb::kPost,
       "/v1/gc",
       "Deletes runs past their retention and files that nothing names.",
       Body::kNone,
       {{"run_days", "In place of the setting run_days."}, {"dry", "1: only say what would go."}},
       On(s, PostGc)},
      {Verb::kGet,
       "/metrics",
       "Counts of jobs, runs and models as Prometheus text.",
       Body::kNone,
       {},
       On(s, GetMetrics)},
      {Verb::kGet, "/", "The web page.", Body::kNone, {}, On(s, GetWebPage)},
      {Verb::kGet, "/web/{name}", "A file of the web page.", Body::kNone, {}, On(s, GetWebFile)},
      {Verb::kGet,
       "/openapi.json",
       "This service as OpenAPI 3.1.",
       Body::kNone,
       {},
       On(s, GetOpenApi)},
  };
}

}  // namespace pared
