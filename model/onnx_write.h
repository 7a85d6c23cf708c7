// Model to ModelProto.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "model/graph.h"
#include "model/wire.h"

namespace pared {

// Where a tensor stands in a file of external data.
struct ExternalPlace {
  std::string location;
  int64_t offset = 0;
};

// Asked for every tensor of fixed-size elements; nullopt: within the message.
using PlaceTensor = std::function<std::optional<ExternalPlace>(const Tensor&)>;

WireText WriteModel(const Model& model, const PlaceTensor& place);

}  // namespace pared
