// Notes of exporters: what a model says for readers and no runtime looks at.

#pragma once

#include <cstdint>
#include <functional>

#include "model/graph.h"

namespace pared {

// Drops doc strings and metadata of graphs, nodes, attributes, values, tensors and functions: torch
// writes the stack trace of each node there. The model's own doc string and metadata stay: programs
// read class names and sizes from them. Nodes for which `keep` says so keep theirs. Returns the
// bytes that the file gets smaller by, about.
int64_t DropNotes(Model& model, const std::function<bool(const Node&)>& keep);

}  // namespace pared
