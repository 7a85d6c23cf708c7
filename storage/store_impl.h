// The connections behind Store. Included by the files that define its methods.
//
// One connection writes, under one mutex: writers wait for each other here and never in SQLite, so
// none sees "database is locked". Readers have connections of their own and, under the write-ahead
// log, wait for no writer.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <vector>

#include "storage/columns.h"
#include "storage/sqlite.h"
#include "storage/store.h"

namespace pared {

// Holds FILE.lock for this process: two daemons on one queue would run each other's jobs again.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& file);  // throws kUnavailable: it is taken
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

class ReaderPool {
 public:
  explicit ReaderPool(std::filesystem::path file) : file_(std::move(file)) {}

  std::unique_ptr<Database> Take();  // waits where all are taken
  void Return(std::unique_ptr<Database> reader);

 private:
  const std::filesystem::path file_;
  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<Database>> idle_;  // guarded by mutex_
  int open_ = 0;                                 // guarded by mutex_
};

// A read connection inside a transaction, given back at the end of the scope.
class Reader {
 public:
  explicit Reader(ReaderPool& pool)
      : pool_(pool),
        database_(pool.Take()),
        transaction_(std::in_place, *database_, DatabaseAccess::kRead) {}
  ~Reader() {
    transaction_.reset();
    database_->ForgetColumns();
    pool_.Return(std::move(database_));
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  Database& database() { return *database_; }

 private:
  ReaderPool& pool_;
  std::unique_ptr<Database> database_;
  std::optional<Transaction> transaction_;
};

struct Store::Impl {
  Impl(const std::filesystem::path& file, StoreLimits store_limits);

  // running -> queued, or cancelled where that was asked for.
  void PutBack(JobId id, const Json& why, int64_t tries_forgiven);

  StoreLimits limits;  // guarded by the mutex
  FileLock lock;
  std::mutex mutex;
  Database writer;                      // guarded by mutex
  std::condition_variable_any queued;   // with mutex: a job has come into the queue
  std::condition_variable_any batched;  // with mutex: a batch has come or may have ended
  ReaderPool readers;
  ColumnCache columns;
};

// JSON columns: NULL and JSON's null are the same.
std::optional<std::string> JsonColumn(const Json& json);
Json JsonOf(const Statement& statement, int column);

// Puts a job into the queue; kUnavailable: it is full. `key`: storage/store.h, SubmitOnce.
JobId InsertJob(Database& writer, const Json& spec, const std::optional<std::string>& key,
                int64_t queued_max);

// The job with this id.
std::optional<Job> ReadJob(Database& database, JobId id);

// Cancels a job that has not ended; whether there was one.
bool MarkCancelled(Database& writer, JobId id);

// The runs with these ids, in their order; those that are not there are left out.
std::vector<Run> ReadRuns(Database& database, const std::vector<int64_t>& ids);

// Inserts the run of (job, chain), or puts it in the place of an earlier one; its id.
int64_t UpsertRun(Database& writer, JobId job, const RunRecord& run);

}  // namespace pared
