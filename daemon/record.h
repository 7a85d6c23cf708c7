// A worker's account of what it did, as runs of the store.

#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config/job_spec.h"
#include "daemon/work_order.h"
#include "storage/artifacts.h"
#include "storage/store.h"

namespace pared {

// Where a worker did its job.
struct WorkPlace {
  const JobSpec& spec;
  const std::string& model_sha256;
  const std::filesystem::path& folder;
};

// A file that the worker names; throws kInternal where it would not lie in the folder.
std::filesystem::path FileIn(const std::filesystem::path& folder, const std::string& file);

// nullopt: there is no such file. Throws kInternal where it is too long, kInvalidArgument where it
// is no WorkResult.
std::optional<WorkResult> ReadResult(const std::filesystem::path& path);

// One for each chain of the result. The files of their models move in.
std::vector<RunRecord> RunsOf(const WorkResult& result, const WorkPlace& place,
                              Artifacts& artifacts);

}  // namespace pared
