#include "storage/columns.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace pared {
namespace {

constexpr size_t kBytesMax = size_t{48} << 20;  // of all columns that are kept
constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// Names that no metric has, which is [a-z0-9][a-z0-9._-]*.
const std::string kBaselines = "#baseline";  // the id of the same job's baseline
const std::string kDropMark = "#drop of ";

size_t BytesOf(const Column& column) {
  return column.runs.size() * (sizeof(int64_t) + sizeof(double));
}

// Appends what runs after `after` have.
void Read(Database& database, const std::string& key, int64_t after, Column& column) {
  const bool is_metric = key != kBaselines;
  Statement select(database, is_metric
                                 ? "SELECT run, value FROM metrics WHERE name = ? AND run > ? "
                                   "ORDER BY run"
                                 : "SELECT r.id, b.id FROM runs AS r JOIN runs AS b "
                                   "ON b.job = r.job AND b.chain = 'baseline' WHERE r.id > ? "
                                   "ORDER BY r.id");
  if (is_metric) select.Bind(key);
  select.Bind(after);
  while (select.Step()) {
    if (select.is_null(1)) continue;  // a test in SQL would cost a fifth of the time
    column.runs.push_back(select.integer(0));
    column.values.push_back(select.real(1));
  }
}

}  // namespace

double Column::At(int64_t run) const {
  if (runs.empty() || run < runs.front() || run > runs.back()) return kMissing;
  // Where no run lacks it, the place follows from the id.
  const auto guess = static_cast<size_t>(run - runs.front());
  if (guess < runs.size() && runs[guess] == run) return values[guess];
  const auto end = runs.begin() + static_cast<std::ptrdiff_t>(std::min(guess + 1, runs.size()));
  const auto found = std::lower_bound(runs.begin(), end, run);
  if (found == end || *found != run) return kMissing;
  return values[static_cast<size_t>(found - runs.begin())];
}

ColumnCache::Version ColumnCache::VersionOf(Database& database) {
  Statement select(database,
                   "SELECT (SELECT count FROM metric_changes), (SELECT max(id) FROM runs)");
  select.Step();
  return {select.integer(0), select.integer(1)};
}

std::shared_ptr<const Column> ColumnCache::Get(Database& database, const std::string& name,
                                               bool is_drop) {
  const std::lock_guard lock(mutex_);
  const Version now = VersionOf(database);
  return is_drop ? Drop(database, name, now) : Find(database, name, now);
}

std::shared_ptr<const Column> ColumnCache::Find(Database& database, const std::string& key,
                                                Version now) {
  Column column;
  int64_t after = 0;
  const auto found = entries_.find(key);
  if (found != entries_.end() && found->second.version.changes == now.changes) {
    found->second.used = ++clock_;
    if (found->second.version.last_run >= now.last_run) return found->second.column;
    column = *found->second.column;
    after = found->second.version.last_run;
  }
  Read(database, key, after, column);
  auto shared = std::make_shared<const Column>(std::move(column));
  Keep(key, now, shared);
  return shared;
}

std::shared_ptr<const Column> ColumnCache::Drop(Database& database, const std::string& metric,
                                                Version now) {
  const std::string key = kDropMark + metric;
  const auto found = entries_.find(key);
  if (found != entries_.end() && found->second.version.changes == now.changes &&
      found->second.version.last_run >= now.last_run) {
    found->second.used = ++clock_;
    return found->second.column;
  }
  const std::shared_ptr<const Column> own = Find(database, metric, now);
  const std::shared_ptr<const Column> baselines = Find(database, kBaselines, now);
  Column drops;
  for (size_t i = 0; i < own->runs.size(); ++i) {
    const double baseline = baselines->At(own->runs[i]);
    if (baseline != baseline) continue;
    const double base = own->At(static_cast<int64_t>(baseline));
    if (base != base) continue;
    drops.runs.push_back(own->runs[i]);
    drops.values.push_back(base - own->values[i]);
  }
  auto shared = std::make_shared<const Column>(std::move(drops));
  Keep(key, now, shared);
  return shared;
}

// A reader whose transaction began before the last deletion must not put its older column in the
// place of a newer one.
void ColumnCache::Keep(const std::string& key, Version version,
                       std::shared_ptr<const Column> column) {
  Entry& entry = entries_[key];
  if (entry.column != nullptr && entry.version.changes > version.changes) return;
  entry = {version, ++clock_, std::move(column)};
  size_t bytes = 0;
  for (const auto& [unused, kept] : entries_) bytes += BytesOf(*kept.column);
  while (bytes > kBytesMax && entries_.size() > 1) {
    const auto oldest =
        std::ranges::min_element(entries_, {}, [](const auto& item) { return item.second.used; });
    bytes -= BytesOf(*oldest->second.column);
    entries_.erase(oldest);
  }
}

}  // namespace pared
