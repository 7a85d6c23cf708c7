// Weights as they are stored: each constant once, with all nodes that read it as a weight.

#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "config/fields.h"
#include "model/rewrite.h"
#include "passes/weights.h"

namespace pared {

// One stored tensor and the nodes that read it as a weight.
struct StoredWeight {
  Tensor tensor;
  std::vector<const WeightSite*> sites;
  std::vector<const Node*> lookups;   // Gather
  std::optional<int64_t> table_axis;  // along which all lookups go; nullopt: they differ
  std::string reason;                 // why it stays float; empty: it does not
};
using StoredWeights = std::map<ConstantRef, StoredWeight>;

// Which weights a pass was asked to store otherwise.
struct StoredChoice {
  std::vector<std::string> op_types;  // "Gather" for tables
  std::unordered_set<const Node*> excluded;
  enum class Tables { kRows, kAnyAxis } tables = Tables::kRows;  // of a matrix; along one axis
};

// Every weight of the scan and every float table that a Gather reads, subgraphs included. A weight
// stays float where one of its readers is not asked for, or is no weighted node.
StoredWeights FindStoredWeights(const Model& model, const WeightScan& scan,
                                const StoredChoice& choice);

// The float tables that a Gather reads, subgraphs included.
std::map<ConstantRef, Tensor> FindTables(const Model& model);

// Gives products of the main graph whose weight Gather looks up too a constant of their own, so
// that each is stored as it is read. Only where `choice` stores the weight and `is_wanted` says so
// of those products. Returns [{"weight", "copy"}, ...].
Json UntieTables(Model& model, const StoredChoice& choice,
                 const std::function<bool(const StoredWeight&)>& is_wanted);

// {"changed": [...], "skipped": [...], "quantized_weight_share": of all elements}
Json ReportStored(const StoredWeights& weights, const WeightScan& scan);

// What a pass that changes nothing says: the first node of the report that was skipped, and why.
std::string FirstSkipped(const Json& report);

// Calls `visit` for every graph of `model`, the outer before the inner, with the graph of
// `original` that it is a copy of. Where it is called, their nodes are still the same, by place.
void EditBeside(Model& model, const Graph& original,
                const std::function<void(const Graph& original, Graph& graph)>& visit);

// Adds nodes that do what the lookup `node` did, by codes and the scales of rows.
struct TableCodes {
  std::string codes, scale;  // initializers, as of a matrix [rows, columns] and [rows, 1]
};
// Puts those of a table into `graph`, called after it.
TableCodes PutTable(const std::string& table, const StoredWeight& stored, Graph& graph,
                    FreshNames& names);
void AddLookup(Node node, const TableCodes& table, Graph& graph, FreshNames& names);

}  // namespace pared
