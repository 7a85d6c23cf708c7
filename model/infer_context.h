// What one operator's inference sees and says. Private to infer_*.cc.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "model/infer_shapes.h"

namespace pared {

using Dims = std::vector<Dim>;

// What is known of a value: its type and, for integer tensors of rank 0 and 1, its elements, which
// may be symbols too. Shapes that a model computes are followed through these.
struct Known {
  ValueType type;
  std::optional<Dims> elements;
  Tensor constant;  // undefined: not one
};

class InferContext {
 public:
  InferContext(const Node& op_node, int64_t opset_version, std::vector<const Known*> op_inputs)
      : node(op_node),
        opset(opset_version),
        outputs(op_node.outputs.size()),
        inputs_(std::move(op_inputs)) {}

  const Node& node;
  const int64_t opset;
  std::vector<Known> outputs;

  size_t input_count() const { return inputs_.size(); }
  bool has_input(size_t i) const { return i < node.inputs.size() && !node.inputs[i].empty(); }
  // kUndefined: not known, or left out.
  DType dtype(size_t i) const;
  // Null: not known, or left out.
  const Dims* dims(size_t i) const;
  const Dims* elements(size_t i) const;
  // The value where it is a constant of float elements. nullopt: not known.
  std::optional<std::vector<float>> floats(size_t i) const;
  // The elements where all are numbers.
  std::optional<std::vector<int64_t>> numbers(size_t i) const;

  void Set(size_t output, DType output_dtype, std::optional<Dims> shape);
  [[noreturn]] void Fail(const std::string& message) const;
  // `axis` counted from the front; Fails where it is out of range.
  size_t Axis(int64_t axis, size_t rank) const;
  // The attribute `axes`, or input `i` since axes are an input. nullopt: not known.
  // Absent is an empty list.
  std::optional<std::vector<int64_t>> Axes(size_t i) const;

 private:
  std::vector<const Known*> inputs_;
};

inline Dim Number(int64_t value) { return Dim{.value = value, .param = "", .unknown = ""}; }
inline Dim AnyDim() { return Dim{}; }
inline bool IsNumber(const Dim& dim) { return dim.value >= 0; }
// Elements, unlike dimensions, may be negative.
Dim Element(int64_t value);
std::optional<int64_t> ElementNumber(const Dim& element);  // nullopt: not a number
Dim DimOfElement(const Dim& element);                      // negative: any
// Certainly equal.
bool Same(const Dim& a, const Dim& b);
Dim Plus(const Dim& a, const Dim& b);
Dim Times(const Dim& a, const Dim& b);
// Fails where the shapes do not broadcast.
Dims Broadcast(const InferContext& context, const Dims& a, const Dims& b);

using InferOp = void (*)(InferContext&);
using InferTable = std::unordered_map<std::string_view, InferOp>;
const InferTable& ElementwiseInference();
const InferTable& ComputeInference();
const InferTable& LayoutInference();
const InferTable& IndexingInference();
const InferTable& SamplingInference();

}  // namespace pared
