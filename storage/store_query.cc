// Queries over runs: pages, tables, counts, fronts.
//
// A query first finds ids, for which the indexes and the metrics suffice, and then reads the rows
// of those that it gives.

#include <algorithm>
#include <iterator>
#include <limits>
#include <span>
#include <utility>

#include "config/fields.h"
#include "storage/filter.h"
#include "storage/pareto.h"
#include "storage/store.h"
#include "storage/store_impl.h"

namespace pared {
namespace {

constexpr size_t kSortKeysMax = 8;
constexpr size_t kColumnsMax = 64;
constexpr size_t kObjectivesMax = 8;

[[noreturn]] void Refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

// The names of all metrics. Leaps from one to the next: there are few names and many rows.
std::vector<std::string> MetricNames(Database& database) {
  Statement next(database, "SELECT min(name) FROM metrics WHERE name > ?");
  std::vector<std::string> names;
  std::string last;
  while (true) {
    next.Bind(last).Step();
    if (next.is_null(0)) return names;
    last = next.text(0);
    names.push_back(last);
    next.Reset();
  }
}

// The first values of a query with these parameters.
std::vector<std::string> TextsOf(Database& database, const std::string& sql,
                                 const std::vector<SqlValue>& values) {
  Statement select(database, sql);
  select.BindValues(values);
  std::vector<std::string> texts;
  while (select.Step()) texts.push_back(select.text(0));
  return texts;
}

// RunFields::check. Where it is in order, the first run that has the option ends the search.
std::string CheckOption(Database& database, const std::string& pass, const std::string& option) {
  constexpr const char* kSteps = " FROM runs, json_each(runs.steps) AS step WHERE ";
  constexpr const char* kIsPass = "json_extract(step.value, '$.pass') = ?";
  const std::string of_pass = std::string(kSteps) + kIsPass;
  const std::string name = option.substr(0, option.find('.'));
  const auto has = [&](const std::string& more, const std::vector<SqlValue>& values) {
    return !TextsOf(database, "SELECT '1'" + more + " LIMIT 1", values).empty();
  };
  if (has(of_pass + " AND json_type(step.value, ?) IS NOT NULL", {pass, "$.\"" + name + "\""})) {
    return "";
  }
  if (!has(std::string(kSteps) + "1", {})) return "";  // nothing is known of any pass
  if (!has(of_pass, {pass})) {
    const auto passes = TextsOf(
        database, std::string("SELECT DISTINCT json_extract(step.value, '$.pass')") + kSteps + "1",
        {});
    return "no run has a pass \"" + pass + "\"" + DidYouMean(pass, passes);
  }
  const auto options =
      TextsOf(database,
              std::string("SELECT DISTINCT option.key FROM runs, json_each(runs.steps) AS step, "
                          "json_each(step.value) AS option WHERE ") +
                  kIsPass,
              {pass});
  return "no run has an option \"" + name + "\" of " + pass + DidYouMean(name, options);
}

// The fields for a question about a few runs.
RunFields FieldsOf(Database& database) {
  return {MetricNames(database), [&](const std::string& pass, const std::string& option) {
            return CheckOption(database, pass, option);
          }};
}

// Those for a question that may look at every run.
RunFields FieldsOf(Database& database, ColumnCache& columns) {
  RunFields fields = FieldsOf(database);
  fields.column = [&](const std::string& metric, bool is_drop) {
    return columns.Get(database, metric, is_drop);
  };
  return fields;
}

SqlText Conditions(const RunQuery& query, const RunFields& run_fields) {
  SqlText where = {"1", {}};
  if (query.experiment) where += {" AND runs.experiment = ?", {*query.experiment}};
  if (query.model) where += {" AND runs.model = ?", {*query.model}};
  if (query.chain) where += {" AND runs.chain = ?", {*query.chain}};
  if (query.job) where += {" AND runs.job = ?", {*query.job}};
  if (query.filter.empty()) return where;
  where.sql += " AND ";
  where += ParseFilter(query.filter, run_fields);
  return where;
}

std::vector<FieldSql> SortFields(const RunQuery& query, const RunFields& run_fields) {
  if (query.sort.size() > kSortKeysMax) {
    Refuse("?sort", "has more than " + std::to_string(kSortKeysMax) + " fields");
  }
  std::vector<FieldSql> fields;
  for (const SortKey& key : query.sort) fields.push_back(FieldOf(key.field, run_fields, "?sort"));
  return fields;
}

// What the sort keys of run `id` are.
std::vector<SqlValue> KeysOf(Database& database, const std::vector<FieldSql>& fields, int64_t id) {
  SqlText sql = {"SELECT id", {}};
  for (const FieldSql& field : fields) {
    sql.sql += ", ";
    sql += field.expression;
  }
  sql += {" FROM runs WHERE id = ?", {id}};
  Statement select(database, sql.sql);
  if (!select.BindValues(sql.values).Step()) {
    Refuse("?after", "run " + std::to_string(id) + " is not there any more: begin anew");
  }
  std::vector<SqlValue> keys;
  for (size_t i = 0; i < fields.size(); ++i) keys.push_back(select.value(static_cast<int>(i) + 1));
  return keys;
}

// The condition that a run comes after run query.after in the query's order: for some key it is
// further, and equal in the keys before that one. Nulls come last.
SqlText After(Database& database, const RunQuery& query, const std::vector<FieldSql>& fields) {
  if (fields.empty() || query.after == 0) return {" AND runs.id > ?", {query.after}};
  const std::vector<SqlValue> keys = KeysOf(database, fields, query.after);
  SqlText after = {" AND (0", {}};
  SqlText equal = {"1", {}};
  for (size_t i = 0; i < fields.size(); ++i) {
    const SqlText& field = fields[i].expression;
    if (!std::holds_alternative<std::monostate>(keys[i])) {
      after.sql += " OR (";
      after += equal;
      after.sql += " AND (";
      after += field;
      after += {query.sort[i].is_descending ? " < ?" : " > ?", {keys[i]}};
      after.sql += " OR ";
      after += field;
      after.sql += " IS NULL))";
    }
    equal.sql += " AND ";
    equal += field;
    equal += {" IS ?", {keys[i]}};
  }
  after.sql += " OR (";
  after += equal;
  after += {" AND runs.id > ?))", {query.after}};
  return after;
}

std::vector<int64_t> Ids(Database& database, const SqlText& sql) {
  Statement select(database, sql.sql);
  select.BindValues(sql.values);
  std::vector<int64_t> ids;
  while (select.Step()) ids.push_back(select.integer(0));
  return ids;
}

std::vector<int64_t> PageIds(Database& database, const RunQuery& query,
                             const RunFields& run_fields) {
  const std::vector<FieldSql> fields = SortFields(query, run_fields);
  SqlText sql = {"SELECT runs.id FROM runs WHERE ", {}};
  sql += Conditions(query, run_fields);
  sql += After(database, query, fields);
  sql.sql += " ORDER BY ";
  for (size_t i = 0; i < fields.size(); ++i) {
    sql += fields[i].expression;
    sql.sql += query.sort[i].is_descending ? " DESC NULLS LAST, " : " ASC NULLS LAST, ";
  }
  sql += {"runs.id LIMIT ?", {query.limit}};
  return Ids(database, sql);
}

Json JsonOfValue(const SqlValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  if (const auto* real = std::get_if<double>(&value)) return *real;
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return nullptr;
}

constexpr double kMissing = std::numeric_limits<double>::quiet_NaN();

// The field of each run; `ids` ascend. NaN where it is missing.
std::vector<double> LookUp(Database& database, const FieldSql& field,
                           const std::vector<int64_t>& ids) {
  std::vector<double> values(ids.size(), kMissing);
  if (!field.expression.values.empty()) {
    const auto* column = std::get_if<std::shared_ptr<const Column>>(&field.expression.values[0]);
    if (column != nullptr) {
      std::ranges::transform(ids, values.begin(), [&](int64_t id) { return (*column)->At(id); });
      return values;
    }
  }
  SqlText sql = {"SELECT ", {}};
  sql += field.expression;
  sql.sql += " FROM runs WHERE runs.id = ?";
  Statement select(database, sql.sql);
  for (size_t i = 0; i < ids.size(); ++i) {
    select.Reset();
    select.BindValues(sql.values).Bind(ids[i]);
    if (select.Step() && !select.is_null(0)) values[i] = select.real(0);
  }
  return values;
}

// Ascending. Without an order in the question, SQLite may walk an index; in that of ids it would
// read every row, which holds kilobytes of JSON.
std::vector<int64_t> SortedIds(Database& database, const SqlText& sql) {
  std::vector<int64_t> ids = Ids(database, sql);
  if (!std::ranges::is_sorted(ids)) std::ranges::sort(ids);
  return ids;
}

std::vector<int64_t> Candidates(Database& database, const RunQuery& query,
                                const RunFields& run_fields) {
  SqlText sql = {"SELECT runs.id FROM runs WHERE ", {}};
  sql += Conditions(query, run_fields);
  const std::vector<int64_t> ids = SortedIds(database, sql);
  const std::vector<int64_t> failed =
      SortedIds(database, {"SELECT id FROM runs WHERE error IS NOT NULL", {}});
  std::vector<int64_t> candidates;
  candidates.reserve(ids.size());
  std::ranges::set_difference(ids, failed, std::back_inserter(candidates));
  return candidates;
}

// The candidates' objectives, negated where much is better; those that lack one are left out.
ParetoPoints Points(Database& database, const std::vector<Objective>& objectives,
                    const RunFields& run_fields, const std::vector<int64_t>& ids) {
  std::vector<std::vector<double>> columns;
  for (const Objective& objective : objectives) {
    const FieldSql field = FieldOf(objective.field, run_fields, "?objectives");
    if (field.type == FieldType::kText) Refuse("?objectives", objective.field + " is no number");
    columns.push_back(LookUp(database, field, ids));
  }
  ParetoPoints points(columns.size());
  points.Reserve(ids.size());
  std::vector<double> values(columns.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    bool is_missing = false;
    for (size_t k = 0; k < columns.size(); ++k) {
      values[k] = objectives[k].is_maximum ? -columns[k][i] : columns[k][i];
      is_missing |= values[k] != values[k];
    }
    if (!is_missing) points.Add(ids[i], values);
  }
  return points;
}

Front MakeFront(const FrontQuery& query, const ParetoPoints& points) {
  Front front;
  ParetoPoints best(points.dimensions());
  const std::vector<bool> dominated = Dominated(points);
  for (size_t i = 0; i < points.size(); ++i) {
    const std::span<const double> values = points.values(i);
    if (!dominated[i]) best.Add(points.run(i), values);
    if (dominated[i] && !query.has_dominated) continue;
    front.runs.push_back({points.run(i), {values.begin(), values.end()}, dominated[i]});
  }
  const auto is_before = [](const auto& a, const auto& b) { return a.values < b.values; };
  std::stable_sort(front.runs.begin(), front.runs.end(), is_before);
  if (const std::optional<size_t> knee = KneeOf(best)) front.knee = best.run(*knee);
  for (FrontRun& run : front.runs) {
    for (size_t k = 0; k < run.values.size(); ++k) {
      if (query.objectives[k].is_maximum) run.values[k] = 0 - run.values[k];
    }
  }
  return front;
}

// The machines of the query's runs. Leaps from one to the next, as MetricNames does.
std::vector<Json> Machines(Database& database, const RunQuery& query, const RunFields& run_fields) {
  Statement next(database, "SELECT min(machine) FROM runs WHERE machine > ?");
  const SqlText where = Conditions(query, run_fields);
  Statement any(database, "SELECT 1 FROM runs WHERE machine = ? AND error IS NULL AND " +
                              where.sql + " LIMIT 1");
  std::vector<Json> machines;
  std::string last;
  while (next.Bind(last).Step() && !next.is_null(0)) {
    last = next.text(0);
    next.Reset();
    any.Bind(last).BindValues(where.values);
    if (any.Step()) machines.push_back(ParseJson(last));
    any.Reset();
  }
  return machines;
}

}  // namespace

std::vector<Run> Store::Runs(const RunQuery& query) const {
  Reader reader(impl_->readers);
  Database& database = reader.database();
  return ReadRuns(database, PageIds(database, query, FieldsOf(database, impl_->columns)));
}

RunTable Store::Table(const RunQuery& query, const std::vector<std::string>& columns) const {
  if (columns.empty() || columns.size() > kColumnsMax) {
    Refuse("?columns", "must be 1 to " + std::to_string(kColumnsMax) + " fields");
  }
  Reader reader(impl_->readers);
  Database& database = reader.database();
  const RunFields of_few = FieldsOf(database);
  SqlText sql = {"SELECT runs.id", {}};
  for (const std::string& column : columns) {
    sql.sql += ", ";
    sql += FieldOf(column, of_few, "?columns").expression;
  }
  Statement select(database, sql.sql + " FROM runs WHERE runs.id = ?");
  RunTable table;
  table.ids = PageIds(database, query, FieldsOf(database, impl_->columns));
  for (const int64_t id : table.ids) {
    select.Reset();
    select.BindValues(sql.values).Bind(id).Step();
    std::vector<Json>& row = table.rows.emplace_back();
    for (size_t i = 0; i < columns.size(); ++i) {
      Json value = JsonOfValue(select.value(static_cast<int>(i) + 1));
      // Kept as text, it is the object that a whole run shows.
      if (columns[i] == "error" && value.is_string()) value = ParseJson(value.get<std::string>());
      row.push_back(std::move(value));
    }
  }
  return table;
}

int64_t Store::CountRuns(const RunQuery& query) const {
  Reader reader(impl_->readers);
  const SqlText where = Conditions(query, FieldsOf(reader.database(), impl_->columns));
  Statement select(reader.database(), "SELECT count(*) FROM runs WHERE " + where.sql);
  select.BindValues(where.values).Step();
  return select.integer(0);
}

Front Store::FrontOf(const FrontQuery& query) const {
  if (query.objectives.empty() || query.objectives.size() > kObjectivesMax) {
    Refuse("?objectives", "must be 1 to " + std::to_string(kObjectivesMax));
  }
  Reader reader(impl_->readers);
  Database& database = reader.database();
  const RunFields run_fields = FieldsOf(database, impl_->columns);
  const std::vector<int64_t> ids = Candidates(database, query.runs, run_fields);
  const ParetoPoints points = Points(database, query.objectives, run_fields, ids);
  Front front = MakeFront(query, points);
  for (const Objective& objective : query.objectives) {
    if (!objective.field.starts_with("latency_ms")) continue;
    front.machines = Machines(database, query.runs, run_fields);
    break;
  }
  front.candidate_count = static_cast<int64_t>(ids.size());
  front.excluded_count = static_cast<int64_t>(ids.size() - points.size());
  return front;
}

std::vector<Run> Store::ParetoFront(const RunQuery& query, const std::string& cost,
                                    const std::string& quality) const {
  {
    Reader reader(impl_->readers);
    const RunFields fields = FieldsOf(reader.database());
    FieldOf(cost, fields, "?cost");
    FieldOf(quality, fields, "?quality");
  }
  const Front front = FrontOf({query, {{cost, false}, {quality, true}}, false});
  std::vector<int64_t> ids;
  for (const FrontRun& run : front.runs) ids.push_back(run.id);
  return RunsWith(ids);
}

}  // namespace pared
