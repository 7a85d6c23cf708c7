// Tables that Gather looks up, such as the embeddings of words, stored in 8 bits.
//
//   Before:  e = Gather(table, ids)
//   After:   c = Gather(table_quantized, ids)  s = Gather(table_scale, ids)  e = Cast(c) * s
//
// Along any one axis: the scales have length 1 along the others.

#pragma once

#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Float tables of at least 16,384 elements, which nodes read only by looking them up along one
// axis, become int8 with a scale for each place of that axis; not those that a node named in
// `excluded` reads. Adds "tables", the names of those that it stored, to `report`, and to its
// "skipped" the lookups whose table stays float. Throws kInvalidArgument, with the name of the
// table, where an element is not finite.
void StoreTables(Model& model, const std::unordered_set<std::string>& excluded, Json& report);

// The elements of each float table that nodes look up and no product has as its weight, by name.
std::vector<std::pair<std::string, int64_t>> FloatTables(const Model& model);

}  // namespace pared
