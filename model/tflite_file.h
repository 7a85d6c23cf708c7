// A TensorFlow Lite file as it is: tensors, and the operators of its main graph and of those that
// it runs, in order. Source of fields and numbers: the TensorFlow Lite schema, version 3
// (schema.fbs).

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/flatbuffer.h"
#include "model/tensor.h"

namespace pared {

struct TfliteTensor {
  std::string name;  // may be empty, or that of another tensor
  DType dtype = DType::kUndefined;
  Shape shape;      // -1: not known
  Tensor constant;  // undefined: an input, or computed. Sparse ones are expanded.
  // real = scale * (code - zero_point); none: the values are what they are.
  std::vector<float> scales;
  std::vector<int64_t> zero_points;
  int64_t axis = 0;  // along which there are several scales

  bool is_variable = false;  // a state that one run leaves to the next

  bool is_quantized() const { return !scales.empty(); }
  int64_t rank() const { return std::ssize(shape); }
};

struct TfliteOp {
  std::string type;  // "CONV_2D"; of a custom operator the name that it has in the file
  std::vector<int64_t> inputs, outputs;       // places in TfliteFile::tensors; -1: left out
  std::optional<FlatTable> options;           // the fields of its kind
  std::span<const std::byte> custom_options;  // of a custom operator, as its kernel reads them

  // The option, or what the schema says where it is absent.
  template <class T>
  T Option(int field, T fallback = {}) const {
    return options ? options->Number<T>(field, fallback) : fallback;
  }
  bool HasInput(size_t i) const { return i < inputs.size() && inputs[i] >= 0; }
};

struct TfliteGraph {
  std::vector<int64_t> inputs, outputs;  // as of an operator
  std::vector<TfliteOp> ops;
  int64_t tensors_begin = 0, tensors_end = 0;  // its own are these of TfliteFile::tensors
};

struct TfliteFile {
  std::shared_ptr<const FlatFile> file;
  std::string description;
  std::vector<TfliteTensor> tensors;  // of all graphs
  TfliteGraph main;
  std::map<int64_t, TfliteGraph> parts;  // what operators run, by the numbers that they have
};

// The numbers of the graphs that the operator runs: of WHILE the condition and the body, of IF what
// is for true and what for false.
std::vector<int64_t> PartsOf(const TfliteOp& op);

// Whether the file says so of itself: "TFL3" behind the first four bytes.
bool IsTflite(std::span<const std::byte> bytes);

// `owner` keeps `bytes` alive; constants are views into them. Throws kInvalidArgument (damaged,
// sizes that do not match; where = the file or the tensor), kUnsupported.
TfliteFile ReadTflite(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                      const std::string& where);

}  // namespace pared
