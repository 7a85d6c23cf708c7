// TensorProto to Tensor: raw bytes as views, typed data fields converted, external data mapped.

#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "model/graph.h"
#include "model/mapped_file.h"

namespace pared {

// What the bytes of a model lie in, and where its external data is.
struct TensorSource {
  enum class Kind { kMemory, kMappedFile };
  std::shared_ptr<const void> owner;
  Kind kind = Kind::kMemory;
  std::filesystem::path folder;                                       // empty: no external data
  std::map<std::string, std::shared_ptr<const MappedFile>> external;  // by location
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
  Unknown unknown;  // doc string and metadata; not the name
};

// `fallback_where` names the tensor in errors where it has no name of its own.
NamedTensor ReadTensor(std::string_view message, TensorSource& source,
                       const std::string& fallback_where);

}  // namespace pared
