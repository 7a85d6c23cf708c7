// The filter language of runs, turned into SQL in which everything that the user wrote is a bound
// parameter.
//
//   model = "yolov8n" and top1_drop < 0.01 and (size_ratio <= 0.3 or tags.keep = "yes")
//
//   or    = and { "or" and }                  and = unary { "and" unary }
//   unary = "not" unary | "(" or ")" | field test
//   test  = ("=" "!=" "<" "<=" ">" ">=") literal | ["not"] "in" "(" literal { "," literal } ")"
//         | ["not"] "like" text | "is" ["not"] "null"
//
// A run that lacks a field, or has NaN there, matches no test of it but `is null`.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "storage/sqlite.h"

namespace pared {

// A piece of SQL over the table `runs`, with the values of its '?' in order.
struct SqlText {
  std::string sql;
  std::vector<SqlValue> values;

  SqlText& operator+=(const SqlText& other);
};

enum class FieldType { kNumber, kText, kAny };

struct FieldSql {
  SqlText expression;
  FieldType type = FieldType::kAny;
};

// What fields of runs there are.
struct RunFields {
  std::vector<std::string> metrics;  // names; empty: any
  // What is wrong with an option of a pass: no run has it; "": nothing. Null: any will do.
  std::function<std::string(const std::string& pass, const std::string& option)> check = {};
  // The column of a metric, or of its drop; null: look each run's number up in the tables, which is
  // right for a few runs.
  std::function<std::shared_ptr<const Column>(const std::string& metric, bool is_drop)> column = {};
};

// What a field of a run is called: id, job, created_ms, experiment, model, chain, artifact, note;
// machine.NAME, tags.NAME, passes.PASS.OPTION; a metric's name; METRIC_drop, the metric of the same
// job's baseline less the run's own. Metrics and options that no run has are refused.
// Throws kInvalidArgument at `where`.
FieldSql FieldOf(const std::string& name, const RunFields& fields, const std::string& where);

// Throws kInvalidArgument at "filter:COLUMN", counted from 1.
SqlText ParseFilter(std::string_view text, const RunFields& fields);

}  // namespace pared
