// TensorFlow Lite files as Models: what they compute, spelled in ONNX (opset 17).

#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "model/graph.h"

namespace pared {

// Inputs and outputs keep their names (unless two are called alike), types and layout ([N,H,W,C]).
// Weights stay as they are stored: halves behind a Cast, codes behind DequantizeLinear; sparse ones
// are expanded. The main graph is read, subgraphs are not. Tensors are views into the file, as
// LoadOnnx has them. Throws kInvalidArgument (damaged; where = the file or a tensor), kNotFound,
// kUnsupported (an operator without a counterpart, all of them named; what an operator cannot be
// said by).
Model LoadTflite(const std::filesystem::path& path);

// The same from memory that `owner` keeps alive; `where` is what errors call the file.
Model ParseTflite(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                  const std::string& where);

// By its first bytes. Throws kNotFound.
bool IsTfliteFile(const std::filesystem::path& path);

// LoadOnnx or LoadTflite, whichever the file is by its first bytes.
Model LoadModel(const std::filesystem::path& path);

}  // namespace pared
