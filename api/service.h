// What the handlers work on, and the handlers.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/message.h"
#include "api/router.h"
#include "config/settings.h"
#include "storage/artifacts.h"
#include "storage/store.h"

namespace pared {

struct Service {
  Store& store;
  Artifacts& artifacts;
  const Settings& settings;
};

// jobs.cc
Response SubmitJob(const Service& service, const Request& request);
Response ListJobs(const Service& service, const Request& request);
Response GetJob(const Service& service, const Request& request);
Response GetJobModel(const Service& service, const Request& request);
Response GetJobLog(const Service& service, const Request& request);
Response CancelJob(const Service& service, const Request& request);

// batches.cc
Response SubmitBatch(const Service& service, const Request& request);
Response ListBatches(const Service& service, const Request& request);
Response GetBatch(const Service& service, const Request& request);
Response CancelBatch(const Service& service, const Request& request);

// batch_report.cc
Response GetBatchReport(const Service& service, const Request& request);

// models.cc
Response PutModel(const Service& service, const Request& request);
Response DeleteModel(const Service& service, const Request& request);
Response ListModels(const Service& service, const Request& request);
Response GetModel(const Service& service, const Request& request);

// uploads.cc
Response PlaceUpload(const Service& service, const Request& request);
Response PutUpload(const Service& service, const Request& request);
Response GetUpload(const Service& service, const Request& request);
Response DeleteUpload(const Service& service, const Request& request);

// events.cc
Response WatchJob(const Service& service, const Request& request);
Response WatchJobs(const Service& service, const Request& request);
Response WatchBatch(const Service& service, const Request& request);

// query.cc
Response ListRuns(const Service& service, const Request& request);
Response GetPareto(const Service& service, const Request& request);

// compare.cc
Response CompareRuns(const Service& service, const Request& request);

// runs.cc
Response ChangeRun(const Service& service, const Request& request);
Response DeleteRun(const Service& service, const Request& request);
Response ListExperiments(const Service& service, const Request& request);
Response DeleteExperiment(const Service& service, const Request& request);
Response GetRun(const Service& service, const Request& request);
Response GetRunModel(const Service& service, const Request& request);
Response GetRunModelData(const Service& service, const Request& request);
Response GetArtifact(const Service& service, const Request& request);
Response GetArtifactData(const Service& service, const Request& request);

// service.cc
Response ListPasses(const Service& service, const Request& request);
Response ListDatasets(const Service& service, const Request& request);
Response GetDataset(const Service& service, const Request& request);
Response GetHealth(const Service& service, const Request& request);
Response GetReady(const Service& service, const Request& request);
Response PostGc(const Service& service, const Request& request);
Response GetMetrics(const Service& service, const Request& request);

// openapi.cc
Response GetOpenApi(const Service& service, const Request& request);

// Throws kInvalidArgument where the chains, or the datasets, of a spec are not there. Does not look
// at its model.
void CheckJobSpec(const Service& service, const JobSpec& spec);
Batch ExistingBatch(const Service& service, const Request& request);  // of the {id}; kNotFound
Json BatchJson(const Batch& batch);

// Whether a spec may name this dataset.
bool HasDataset(const Service& service, const std::string& name);
// Names of all datasets.
std::vector<std::string> DatasetNames(const Service& service);
// A run as JSON, without the reports of its passes.
Json RunJson(const Run& run);

// A query parameter, or the {id} of the path, as an integer in a range. Throws kInvalidArgument.
int64_t QueryInteger(const Request& request, const std::string& name, IntegerRange range,
                     int64_t absent);
std::optional<std::string> QueryText(const Request& request, const std::string& name);
int64_t IdOf(const Request& request);
int64_t LimitOf(const Request& request);  // ?limit=

// A time that may not have come: null then.
Json TimeJson(const std::optional<int64_t>& time_ms);

// {NAME: items, "next": the last one's id where the page is full, else null}
Json Page(const char* name, Json items, int64_t limit);

}  // namespace pared
