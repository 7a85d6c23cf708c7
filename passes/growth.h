// Where a pass that is to make a file smaller stores some of it twice.

#pragma once

#include <cstdint>
#include <string>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

// About what a file needs for the graph: its constants, and of its nodes mostly names.
int64_t BytesOf(const Graph& graph);

// The constants of `before` that `after` has as they were, and once more under their name with
// `suffix`, since nodes that were left alone read them too.
struct StoredTwice {
  int64_t count = 0, bytes = 0;  // of the copies that were there before
  std::string example;           // the largest
};
StoredTwice FindStoredTwice(const Graph& before, const Graph& after, const std::string& suffix);

// Initializers of `graph` that `before` does not have, of two axes or more, become one where they
// are equal.
void MergeNewConstants(const Graph& before, Graph& graph);

}  // namespace pared
