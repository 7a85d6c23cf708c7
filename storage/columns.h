// Metrics of all runs in memory, for questions that look at every run: a look-up here takes a tenth
// of one in a table of millions of rows.
//
// A column belongs to a state of the database. `metric_changes.count` rises whenever numbers of a
// run that is there change or go; runs that come only add to a column's end. So a column is brought
// up to date by reading what is new, and is read anew after a deletion.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "storage/sqlite.h"

namespace pared {

// A number of each run that has it, by run.
struct Column {
  std::vector<int64_t> runs;  // ascending
  std::vector<double> values;

  double At(int64_t run) const;  // NaN: the run has none
};

class ColumnCache {
 public:
  // A metric, or METRIC_drop: that of the same job's baseline less the run's own. `database` is in
  // a transaction, and the column is that of the state it sees; it may hold runs that came later.
  std::shared_ptr<const Column> Get(Database& database, const std::string& name, bool is_drop);

 private:
  struct Version {
    int64_t changes = 0;
    int64_t last_run = 0;
  };
  struct Entry {
    Version version;
    int64_t used = 0;  // when, by clock_
    std::shared_ptr<const Column> column;
  };

  static Version VersionOf(Database& database);
  std::shared_ptr<const Column> Find(Database& database, const std::string& key, Version now);
  std::shared_ptr<const Column> Drop(Database& database, const std::string& metric, Version now);
  void Keep(const std::string& key, Version version, std::shared_ptr<const Column> column);

  std::mutex mutex_;
  std::map<std::string, Entry> entries_;  // guarded by mutex_
  int64_t clock_ = 0;                     // guarded by mutex_
};

}  // namespace pared
