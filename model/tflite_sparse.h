// Sparse constants of TensorFlow Lite files, expanded.

#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "model/flatbuffer.h"
#include "model/tensor.h"

namespace pared {

// The dense tensor of `shape` that SparsityParameters and the values that are stored say, zero
// elsewhere. Throws kInvalidArgument at `where`.
Tensor ExpandSparse(const FlatTable& sparsity, std::span<const std::byte> values, DType dtype,
                    const Shape& shape, const std::string& where);

}  // namespace pared
