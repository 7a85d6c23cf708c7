// Tensors that lie in files, so that a model may be larger than memory.

#pragma once

#include <filesystem>

#include "model/tensor.h"

namespace pared {

// The same tensor in a file without a name in `folder`, mapped: its pages leave memory where they
// are not read. The tensor itself where `folder` is empty or it has less than a megabyte. Throws
// kUnavailable where the disk refuses.
Tensor Spilled(const Tensor& tensor, const std::filesystem::path& folder);

}  // namespace pared
