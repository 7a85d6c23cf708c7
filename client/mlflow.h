// Runs for an MLflow tracking server, by its REST API 2.0.

#pragma once

#include <string>
#include <vector>

#include "config/fields.h"

namespace pared {

// The limits of MLflow's API on one batch, and on the text of a parameter and of a tag.
constexpr size_t kMlflowMetricsMax = 1'000;
constexpr size_t kMlflowParamsMax = 100;
constexpr size_t kMlflowTagsMax = 100;
constexpr size_t kMlflowParamBytesMax = 6'000;
constexpr size_t kMlflowTagBytesMax = 5'000;

// The bodies of POST runs/log-batch that put a run there, without "run_id"; `run` is what GET
// /v1/runs/{id} of the daemon at `url` gives. Numbers that are NaN are no metrics: the tag
// "pared.not_measured" names them. A text that is too long ends with "...", and the tag
// "pared.shortened" names it.
std::vector<Json> MlflowBatches(const Json& run, const std::string& url);

// What a run is known by on the server, so that it is there once however often it is exported.
std::string MlflowIdentity(const Json& run, const std::string& url);

}  // namespace pared
