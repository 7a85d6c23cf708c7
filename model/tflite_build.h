// Puts a TensorFlow Lite file together: tensors and operators in order, then its bytes.
// Source of fields and numbers: the TensorFlow Lite schema, version 3 (schema.fbs).

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "model/tflite_file.h"

namespace pared {

// An option of an operator: its place in the schema's table, and its value.
struct TfliteOption {
  int field = 0;
  std::variant<bool, int8_t, int32_t, float> value;
};

// BuiltinOptions that are written here, by their numbers.
enum class TfliteOptionsKind : uint8_t {
  kNone = 0,
  kConv2D = 1,
  kDepthwiseConv2D = 2,
  kPool2D = 5,
  kFullyConnected = 8,
  kSoftmax = 9,
  kConcatenation = 10,
  kAdd = 11,
  kLocalResponseNormalization = 13,
  kResizeBilinear = 15,
  kSpaceToDepth = 19,
  kMul = 21,
  kGather = 23,
  kReducer = 27,
  kSub = 28,
  kDiv = 29,
  kStridedSlice = 32,
  kSplit = 35,
  kCast = 37,
  kArgMax = 40,
  kTransposeConv = 49,
  kShape = 55,
  kArgMin = 57,
  kPack = 59,
  kUnpack = 64,
  kResizeNearestNeighbor = 74,
  kLeakyRelu = 75,
  kMirrorPad = 77,
  kSplitV = 79,
  kDepthToSpace = 94,
  kBatchMatMul = 101,
  kCumsum = 102,
  kGelu = 116,
};

struct TfliteOptions {
  TfliteOptionsKind kind = TfliteOptionsKind::kNone;
  std::vector<TfliteOption> fields;
};

class TfliteBuilder {
 public:
  // Its place. A dimension of -1 is one that the caller decides.
  int64_t AddTensor(TfliteTensor tensor);
  const TfliteTensor& tensor(int64_t t) const { return tensors_[static_cast<size_t>(t)]; }
  void Rename(int64_t t, std::string name) {
    tensors_[static_cast<size_t>(t)].name = std::move(name);
  }

  // `type` as in TfliteOperatorNames(). Inputs of -1 are left out.
  void AddOp(std::string type, std::vector<int64_t> inputs, std::vector<int64_t> outputs,
             TfliteOptions options = {});

  struct Entry {
    std::string name;  // by which a signature calls it
    int64_t tensor = -1;
  };
  // What no output needs is left out. Metadata are names and bytes. Throws kUnsupported beyond 2
  // GB.
  std::string Finish(const std::vector<Entry>& inputs, const std::vector<Entry>& outputs,
                     const std::string& description,
                     const std::vector<std::pair<std::string, std::string>>& metadata) const;

 private:
  struct Op {
    std::string type;
    std::vector<int64_t> inputs, outputs;
    TfliteOptions options;
  };
  struct Kept {
    std::vector<const Op*> ops;
    std::vector<int64_t> places;  // by tensor; -1: not needed
  };
  Kept Needed(const std::vector<Entry>& inputs, const std::vector<Entry>& outputs) const;

  std::vector<TfliteTensor> tensors_;
  std::vector<Op> ops_;
};

}  // namespace pared
