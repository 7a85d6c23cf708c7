// Scans batches: finds the models, decides what is to be done for each, puts jobs into the queue.
//
// A batch is scanned in two steps, each of which goes on where a crash or a stop left it: every
// model is looked at and its decision stored; then the jobs are submitted, so that reading models
// disturbs no latency that the batch's own jobs measure. From then on the jobs are the batch. When
// they have ended, the runs that became worse or better are tagged.

#pragma once

#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "config/batch_spec.h"
#include "config/settings.h"
#include "daemon/import_model.h"
#include "storage/artifacts.h"
#include "storage/store.h"

namespace pared {

// What determines the results of a job but the model itself, and its digest. Equal recipes on equal
// models give equal results.
struct Recipe {
  JobSpec spec;
  std::string digest;  // SHA-256, hexadecimal
};

// Of a spec with all options filled in: chains, data (with the bytes of the datasets, which lie
// below `datasets`), evaluation, seed, the version of pared, processor and instruction set. Throws
// kNotFound where a dataset is not there.
Recipe RecipeOf(JobSpec spec, const std::filesystem::path& datasets);

// What lies below a root and matches the batch's patterns, by path. An item here is decided where
// it is excluded or refused: links are not followed, folders that cannot be read are named.
std::vector<BatchItem> FindModels(const BatchSpec& spec);

class Batcher {
 public:
  // Starts at once. Store and artifacts must outlive it. `program` is started with "import ...".
  Batcher(Store& store, Artifacts& artifacts, Settings settings,
          std::filesystem::path program = "/proc/self/exe");
  ~Batcher() = default;  // stops; what is not scanned goes on at the next start

  void SetSettings(Settings settings);  // of the batches whose scan begins from now on

 private:
  class Scan;

  Settings CopySettings() const;
  void Loop(std::stop_token stop);
  void ScanGuarded(const Batch& batch, std::stop_token stop);
  void Mark(const Batch& batch);

  Store& store_;
  Artifacts& artifacts_;
  const std::filesystem::path program_;
  mutable std::mutex mutex_;
  Settings settings_;    // guarded by mutex_
  std::jthread thread_;  // last: it uses the rest
};

}  // namespace pared
