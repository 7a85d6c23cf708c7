#include "storage/sqlite.h"

#include <sqlite3.h>

#include <algorithm>

#include "base/error.h"
#include "storage/columns.h"

namespace pared {
namespace {

// Our own connections wait for each other on a mutex; this is for a shell that somebody has opened.
constexpr int kBusyTimeoutMs = 10'000;

[[noreturn]] void Throw(sqlite3* connection, const std::string& doing) {
  const int result = sqlite3_errcode(connection) & 0xFF;
  const bool is_passing = result == SQLITE_FULL || result == SQLITE_BUSY || result == SQLITE_LOCKED;
  const char* file = sqlite3_db_filename(connection, "main");
  throw Error(is_passing ? ErrorCode::kUnavailable : ErrorCode::kInternal,
              "cannot " + doing + ": " + sqlite3_errmsg(connection), file != nullptr ? file : "");
}

using BoundColumns = std::vector<std::shared_ptr<const Column>>;

// column_at(PLACE, RUN): PLACE is one in the connection's list, so that no pointer passes through
// SQL.
void ColumnAt(sqlite3_context* context, int, sqlite3_value** arguments) {
  const auto& columns = *static_cast<const BoundColumns*>(sqlite3_user_data(context));
  const auto place = static_cast<uint64_t>(sqlite3_value_int64(arguments[0]));
  if (place >= columns.size()) return;  // NULL
  const double value = columns[place]->At(sqlite3_value_int64(arguments[1]));
  if (value == value) sqlite3_result_double(context, value);
}

}  // namespace

void Database::Closer::operator()(sqlite3* connection) const { sqlite3_close_v2(connection); }

Database::Database(const std::filesystem::path& file, DatabaseAccess access) {
  const bool is_writer = access != DatabaseAccess::kRead;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (is_writer ? SQLITE_OPEN_CREATE : 0);
  sqlite3* connection = nullptr;
  const int result = sqlite3_open_v2(file.c_str(), &connection, flags, nullptr);
  connection_.reset(connection);
  if (result != SQLITE_OK) {
    throw Error(ErrorCode::kInternal,
                std::string("cannot open the database: ") + sqlite3_errstr(result), file.string());
  }
  sqlite3_busy_timeout(connection, kBusyTimeoutMs);
  Execute("PRAGMA foreign_keys = ON");
  if (access == DatabaseAccess::kCopy) return;
  // Enough for 100,000 runs; read by mapping, so that connections share what the kernel holds.
  Execute("PRAGMA mmap_size = 1073741824");
  if (is_writer) {
    Execute("PRAGMA journal_mode = WAL");
    // A job that was answered with 201 outlives a loss of power.
    Execute("PRAGMA synchronous = FULL");
  } else {
    Execute("PRAGMA query_only = ON");
    sqlite3_create_function(connection_.get(), "column_at", 2,
                            SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_DIRECTONLY, columns_.get(),
                            ColumnAt, nullptr, nullptr);
  }
}

void Database::Execute(const std::string& sql) {
  if (sqlite3_exec(connection_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
    Throw(connection_.get(), "run \"" + sql.substr(0, 60) + "\"");
  }
}

int64_t Database::changes() const { return sqlite3_changes64(connection_.get()); }

void Database::BackUp(const std::filesystem::path& file) {
  constexpr int kPagesAStep = 1'000;  // 4 MB: writers get their turn between two steps
  const Database copy(file, DatabaseAccess::kCopy);
  sqlite3* target = copy.connection_.get();
  sqlite3_backup* backup = sqlite3_backup_init(target, "main", connection_.get(), "main");
  if (backup == nullptr) Throw(target, "begin a backup");
  int result = SQLITE_OK;
  while (result == SQLITE_OK || result == SQLITE_BUSY || result == SQLITE_LOCKED) {
    if (result != SQLITE_OK) sqlite3_sleep(10);
    result = sqlite3_backup_step(backup, kPagesAStep);
  }
  sqlite3_backup_finish(backup);
  if (result != SQLITE_DONE) Throw(target, "back up");
}

void Database::Rollback() noexcept {
  // SQLite has rolled back by itself where the disk was full: then this fails, and nothing is
  // amiss.
  sqlite3_exec(connection_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
}

void Statement::Finalizer::operator()(sqlite3_stmt* statement) const {
  sqlite3_finalize(statement);
}

Statement::Statement(Database& database, std::string_view sql)
    : connection_(database.connection_.get()), columns_(*database.columns_) {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v2(connection_, sql.data(), static_cast<int>(sql.size()),
                                        &statement, nullptr);
  statement_.reset(statement);
  if (result != SQLITE_OK) Throw(connection_, "prepare a statement");
}

void Statement::CheckBound(int result) const {
  if (result != SQLITE_OK) Throw(connection_, "bind a value");
}

Statement& Statement::Bind(int64_t value) {
  CheckBound(sqlite3_bind_int64(statement_.get(), ++bound_, value));
  return *this;
}

Statement& Statement::Bind(const std::shared_ptr<const Column>& column) {
  const auto found = std::ranges::find(columns_, column);
  const int64_t place = found - columns_.begin();
  if (found == columns_.end()) columns_.push_back(column);
  return Bind(place);
}

Statement& Statement::Bind(double value) {
  CheckBound(sqlite3_bind_double(statement_.get(), ++bound_, value));
  return *this;
}

Statement& Statement::Bind(const std::string& value) {
  CheckBound(sqlite3_bind_text64(statement_.get(), ++bound_, value.data(), value.size(),
                                 SQLITE_TRANSIENT, SQLITE_UTF8));
  return *this;
}

Statement& Statement::BindNull() {
  CheckBound(sqlite3_bind_null(statement_.get(), ++bound_));
  return *this;
}

Statement& Statement::BindValue(const SqlValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return Bind(*integer);
  if (const auto* real = std::get_if<double>(&value)) return Bind(*real);
  if (const auto* text = std::get_if<std::string>(&value)) return Bind(*text);
  if (const auto* column = std::get_if<std::shared_ptr<const Column>>(&value)) return Bind(*column);
  return BindNull();
}

Statement& Statement::BindValues(const std::vector<SqlValue>& values) {
  for (const SqlValue& value : values) BindValue(value);
  return *this;
}

bool Statement::Step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result != SQLITE_DONE) Throw(connection_, "run a statement");
  return false;
}

void Statement::Run() {
  while (Step()) {
  }
}

void Statement::Reset() {
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  bound_ = 0;
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

int64_t Statement::integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

double Statement::real(int column) const { return sqlite3_column_double(statement_.get(), column); }

std::string Statement::text(int column) const {
  // The blob view has the same bytes as the text view and a type that needs no unsigned char cast.
  sqlite3_column_text(statement_.get(), column);
  const void* bytes = sqlite3_column_blob(statement_.get(), column);
  const int length = sqlite3_column_bytes(statement_.get(), column);
  return std::string(static_cast<const char*>(bytes), static_cast<size_t>(length));
}

SqlValue Statement::value(int column) const {
  switch (sqlite3_column_type(statement_.get(), column)) {
    case SQLITE_NULL:
      return {};
    case SQLITE_INTEGER:
      return integer(column);
    case SQLITE_FLOAT:
      return real(column);
    default:
      return text(column);
  }
}

Transaction::Transaction(Database& database, DatabaseAccess access) : database_(database) {
  database_.Execute(access == DatabaseAccess::kWrite ? "BEGIN IMMEDIATE" : "BEGIN");
}

Transaction::~Transaction() {
  if (is_open_) database_.Rollback();
}

void Transaction::Commit() {
  database_.Execute("COMMIT");
  is_open_ = false;
}

}  // namespace pared
