// SQLite behind three small classes: a connection, a statement, a transaction.
//
// The only file beside sqlite.cc that knows SQLite. Result codes become Error: a full disk or a
// lock that did not come free is kUnavailable, everything else kInternal.

#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

struct sqlite3;
struct sqlite3_stmt;

namespace pared {

enum class DatabaseAccess { kWrite, kRead, kCopy };

struct Column;

// monostate: NULL. A column is bound as the first argument of column_at(COLUMN, RUN), a function
// that read connections have: the run's number, or NULL.
using SqlValue =
    std::variant<std::monostate, int64_t, double, std::string, std::shared_ptr<const Column>>;

// One connection; used by one thread at a time.
class Database {
 public:
  // kWrite creates the file where it is missing and turns the write-ahead log on; kRead needs a
  // file that a writer has opened before; kCopy is for a backup: nothing is set in the file.
  Database(const std::filesystem::path& file, DatabaseAccess access);

  // Runs statements that return nothing.
  void Execute(const std::string& sql);
  void Rollback() noexcept;                    // of what is open, if anything
  int64_t changes() const;                     // rows changed by the last statement
  void ForgetColumns() { columns_->clear(); }  // no statement that has one bound is left
  // Copies all of it into a new file while others read and write. Throws as statements do.
  void BackUp(const std::filesystem::path& file);

 private:
  friend class Statement;
  struct Closer {
    void operator()(sqlite3* connection) const;
  };
  // Those that were bound, for column_at.
  std::unique_ptr<std::vector<std::shared_ptr<const Column>>> columns_ =
      std::make_unique<std::vector<std::shared_ptr<const Column>>>();
  std::unique_ptr<sqlite3, Closer> connection_;
};

// A prepared statement. Parameters are bound in order: s.Bind(17).Bind("queued").
class Statement {
 public:
  Statement(Database& database, std::string_view sql);

  Statement& Bind(int64_t value);
  Statement& Bind(double value);  // NaN is bound as NULL
  Statement& Bind(const std::string& value);
  Statement& Bind(const char* value) { return Bind(std::string(value)); }
  Statement& Bind(const std::shared_ptr<const Column>& column);
  Statement& BindNull();
  Statement& BindValue(const SqlValue& value);
  Statement& BindValues(const std::vector<SqlValue>& values);
  template <class T>
  Statement& Bind(const std::optional<T>& value) {
    return value ? Bind(*value) : BindNull();
  }

  bool Step();   // true: a row is there
  void Run();    // to its end
  void Reset();  // ready to bind and step again

  // Columns of the row, from 0.
  bool is_null(int column) const;
  int64_t integer(int column) const;
  double real(int column) const;
  std::string text(int column) const;
  SqlValue value(int column) const;

 private:
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const;
  };
  void CheckBound(int result) const;

  sqlite3* connection_;
  std::vector<std::shared_ptr<const Column>>& columns_;  // the connection's
  std::unique_ptr<sqlite3_stmt, Finalizer> statement_;
  int bound_ = 0;
};

// Rolled back unless committed.
class Transaction {
 public:
  // kWrite takes the write lock at once, so that it cannot fail half way; kRead sees one state of
  // the database until its end, whatever is written meanwhile.
  Transaction(Database& database, DatabaseAccess access);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  void Commit();

 private:
  Database& database_;
  bool is_open_ = true;
};

}  // namespace pared
