// NumPy's files: one array (.npy), or a zip archive of named ones (.npz), stored or deflated.

#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/tensor.h"

namespace pared {

// Format versions 1 to 3, C order, mapped. Throws kInvalidArgument.
Tensor LoadNpy(const std::filesystem::path& path);

// The same from bytes that `owner` keeps; `where` names them in errors.
Tensor ParseNpy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                const std::string& where);

// Format version 1. Throws kUnsupported where NumPy lacks the type; kUnavailable.
void SaveNpy(const Tensor& tensor, const std::filesystem::path& path);

// The names of an .npz file's arrays, in the order of the file. Throws kInvalidArgument.
std::vector<std::string> NpzArrays(const std::filesystem::path& path);

// One of them, in memory, its CRC-32 checked. Throws kInvalidArgument at "PATH:NAME"; where there
// is no such array, the message lists those that there are.
Tensor LoadNpz(const std::filesystem::path& path, const std::string& array);

}  // namespace pared
