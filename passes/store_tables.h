// Tables that Gather looks up, such as the embeddings of words, stored in 8 bits.
//
//   Before:  e = Gather(table, ids)
//   After:   c = Gather(table_quantized, ids)  s = Gather(table_scale, ids)  e = Cast(c) * s

#pragma once

#include <string>
#include <unordered_set>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// Float matrices of at least 16,384 elements, rows of which are all that nodes read of them, become
// int8 with a scale for each row; not those that a node named in `excluded` reads. Adds "tables",
// the names of those that it stored, to `report`. Throws kInvalidArgument, with the name of the
// table, where an element is not finite.
void StoreTables(Model& model, const std::unordered_set<std::string>& excluded, Json& report);

}  // namespace pared
