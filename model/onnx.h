// ONNX files to and from Model, over the protobuf wire format.

#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "model/graph.h"

namespace pared {

// Reads an ONNX file. The file is mapped, and tensors are views into it: it must not be changed
// while the Model or any of its tensors lives. Constant tensors stored as external data are opened
// beneath the folder of `path` and nowhere else. Nodes out of order are sorted.
// Throws kInvalidArgument (not an ONNX model, truncated, sizes that do not match; where = the file
// or the tensor), kNotFound, kUnsupported (IR version or opset that pared does not know).
Model LoadOnnx(const std::filesystem::path& path);

// The same from memory that `owner` keeps alive. `folder` is where external data lies; empty: none
// is allowed.
Model ParseOnnx(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                const std::filesystem::path& folder = {});

// Writes the model aside and renames it into place. Tensors are written as raw_data, one at a time.
// Where the file would pass 2 GB (protobuf's limit), tensors of 1 KiB and more go to `path`.data.
void SaveOnnx(const Model& model, const std::filesystem::path& path);

// One message; throws kInvalidArgument where it would pass 2 GB.
std::string SerializeOnnx(const Model& model);

// One TensorProto file, as ONNX test data sets hold them. `name` receives its name.
Tensor ParseTensorProto(std::span<const std::byte> bytes, std::string& name);

}  // namespace pared
