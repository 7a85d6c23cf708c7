// Files that finished passes left, to be used again: by a job that runs again after a crash, and by
// jobs that begin alike.
//
//   FOLDER/MODEL/KEY/entry.json     {"sha256": of "body" as it is written, "body": {"files": name
//   to
//                                   SHA-256, "report": ...}}
//   FOLDER/MODEL/KEY/NAME           the files
//   FOLDER/MODEL/.OWNER-N           an entry on its way in, renamed when it is whole
//
// MODEL is the SHA-256 of the model that the job started from. A worker writes below that folder
// alone, so that whoever made one model cannot spoil the results of another. An entry's folder is
// touched when it is used: its time says which was used least recently.

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>

#include "config/fields.h"

namespace pared {

struct CacheEntry {
  std::filesystem::path folder;
  Json report;
};

struct TrimmedCache {
  int64_t count = 0, bytes = 0;            // removed
  int64_t kept_count = 0, kept_bytes = 0;  // still there
};

// The entries of one model, as one worker sees them. Thread-safe; several workers may use the same
// folder at once.
class PassCache {
 public:
  // `folder`: FOLDER/MODEL, which is there. `owner`: names this worker among those that run.
  PassCache(std::filesystem::path folder, std::string owner, int64_t bytes_max);

  // The entry, each of its bytes checked against its digest. nullopt: it is not there; or it is
  // damaged, and is gone now.
  std::optional<CacheEntry> Find(const std::string& key) const;

  // `write` makes the files in a new folder. Returns false where they are more than `bytes_max`:
  // they are not kept. Throws what `write` throws, and kUnavailable where the disk refuses; with
  // nothing left behind.
  bool Put(const std::string& key, const Json& report,
           const std::function<void(const std::filesystem::path& folder)>& write) const;

  void Drop(const std::string& key) const;

 private:
  const std::filesystem::path folder_;
  const std::string owner_;
  const int64_t bytes_max_;
};

struct CacheLimits {
  int64_t bytes_max = 0;
  const std::set<std::string>* models = nullptr;  // null: all
};

// Removes the entries of models that are not in `models`, then those used least recently until
// `bytes_max` remain. Workers may use the cache meanwhile: what they have open stays readable.
TrimmedCache TrimPassCache(const std::filesystem::path& folder, const CacheLimits& limits,
                           bool is_dry);

// Removes what `owner` has left on its way in; of all owners where it is empty.
void ClearPassCacheParts(const std::filesystem::path& folder, const std::string& owner);

}  // namespace pared
