// ONNX files to and from Model, over the protobuf wire format.

#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

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

// The file and those that its tensors are stored in, each once, by the names that the model gives
// them beneath its folder. Throws as LoadOnnx does where one of them is missing or not allowed.
std::vector<std::filesystem::path> ModelFiles(const std::filesystem::path& path);

struct SaveOptions {
  int64_t message_bytes_max = INT32_MAX;  // protobuf's limit: beyond, tensors go to a second file
  int64_t external_bytes_min = 1024;      // smaller tensors stay: shape inference reads them
};

// Writes the model aside and renames it into place. Tensors are written as raw_data, one at a time.
// Where the file would pass the limit, large tensors go to `path`.data, each at a page boundary.
// Throws kUnavailable where the disk refuses, with nothing left behind.
void SaveOnnx(const Model& model, const std::filesystem::path& path,
              const SaveOptions& options = {});

// Hands the bytes of the one message that SaveOnnx writes, whatever their number, to `sink`, part
// by part.
void StreamOnnx(const Model& model, const std::function<void(std::span<const std::byte>)>& sink);

// One message; throws kInvalidArgument where it would pass 2 GB.
std::string SerializeOnnx(const Model& model);

// One TensorProto file, as ONNX test data sets hold them. `name` receives its name.
Tensor ParseTensorProto(std::span<const std::byte> bytes, std::string& name);

}  // namespace pared
