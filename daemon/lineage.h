// What a run was made from: enough to make it again and to tell whether it is the same.

#pragma once

#include <string>

#include "config/job_spec.h"
#include "daemon/work_order.h"

namespace pared {

// {"model": {"name", "sha256"}, "passes": [{"pass", "version", "options"}, ...],
//  "calibration": null or {"dataset", "samples", "sha256"},
//  "evaluation": {"dataset", "samples", "random", "sha256"}, "seed", "version"}
//
// `steps` are those of the run's chain. Equal lineages, but for `evaluation`, give equal bytes.
Json LineageOf(const JobSpec& spec, const std::string& model_sha256, const Json& steps,
               const WorkResult& result);

}  // namespace pared
