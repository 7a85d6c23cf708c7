// A model's values as a TensorFlow Lite file comes to hold them: the way back of tflite_values.h.
//
// A value is held by one tensor or by several that differ in the order of its axes: what
// convolutions make is held as [N,H,W,C], and what can do with any order takes the one that is
// there. A Transpose is no operator but another order of the same tensor; it is written where
// somebody needs the axes in an order that is not there.
//
// What stands between DequantizeLinear and QuantizeLinear computes with codes (int8; uint8 codes
// are moved by 128), where TensorFlow Lite has the operator for codes; everything else in float.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/graph.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "model/tflite_build.h"
#include "model/tflite_schema.h"

namespace pared {

// Axis i of the tensor is axis order[i] of the value.
using AxisOrder = std::vector<int64_t>;

AxisOrder PlainOrder(int64_t rank);
AxisOrder ChannelsLast(int64_t rank);  // [N,C,H,W] as [N,H,W,C]
// Where axis `axis` of the value lies in a tensor of the order.
int64_t PlaceOf(const AxisOrder& order, int64_t axis);
Shape Permuted(const Shape& shape, const AxisOrder& order);

// real = scale * (code - zero_point), code of int8.
struct CodeScale {
  float scale = 1;
  int64_t zero_point = 0;
  bool operator==(const CodeScale&) const = default;
};

class TfliteLowering {
 public:
  // Adds the graph's inputs. `model` outlives this; its functions are inlined.
  explicit TfliteLowering(const Model& model);

  // --- The operator at hand

  // `computes` in codes where it has codes to read and to write: whether the codes of its result
  // have a scale of their own, or that of its first input. `fuses` an activation that follows.
  // Never in codes are also operators that TensorFlow Lite has for codes but XNNPACK, by which
  // LiteRT computes, has not: HardSwish, Relu and Clip that no product takes in, Gelu, PRelu,
  // AveragePool and Softmax take half to a seventeenth of the time in float between codes.
  enum class Codes : uint8_t { kNever, kMoved, kComputed };
  void Begin(const Node& node, Codes codes, bool fuses);
  const Node& node() const { return *node_; }
  [[noreturn]] void Refuse(const std::string& why) const;
  void Require(bool holds, const std::string& why) const {
    if (!holds) Refuse(why);
  }
  bool HasInput(size_t i) const { return i < node_->inputs.size() && !node_->inputs[i].empty(); }
  const std::string& Input(size_t i) const;  // Refuses where it is left out
  bool in_codes() const { return in_codes_; }
  // What the operator's result becomes in codes.
  CodeScale result_scale() const { return *result_scale_; }
  int8_t activation() const { return activation_; }  // that is part of the operator
  // What is added to a product, before the activation; empty: nothing.
  const std::string& bias() const { return bias_; }
  // Computes in float after all: what the operator reads has no form in codes.
  void LeaveCodes();
  // Has a node that follows, the only reader of the result, done with this one.
  void Absorb(const Node& node);
  // The only reader of `value`, which is not an output; null: there is none, or several.
  const Node* OnlyReader(const std::string& value) const;
  // The same, at whichever input.
  const Node* AnyReader(const std::string& value) const;
  // Whether it is a QuantizeLinear whose codes can be written.
  bool IsQuantizer(const Node& node) const { return IsCode(node.outputs[0]); }
  bool IsDone(const Node& node) const { return done_.contains(&node); }
  // The value in whose place the operator's first result is defined.
  const std::string& result() const { return result_; }

  // --- Values

  DType TypeOf(const std::string& value) const;   // halves count as float
  Shape ShapeOf(const std::string& value) const;  // -1: open. Refuses where the rank is not known
  int64_t RankOf(const std::string& value) const { return std::ssize(ShapeOf(value)); }
  int64_t Axis(int64_t axis, int64_t rank) const;  // from the front
  // Null: computed when the model runs. What follows from shapes counts as a constant.
  const Tensor* Constant(const std::string& value) const;
  std::optional<float> Number(const std::string& value) const;  // a constant of one element
  std::vector<float> Floats(const std::string& value, const std::string& what) const;
  std::vector<int64_t> Integers(const std::string& value, const std::string& what) const;
  // Of the attribute, or of the input that took its place; nullopt: neither is there.
  std::optional<std::vector<int64_t>> IntegersOf(const std::string& attribute, size_t input) const;
  int64_t opset() const { return opset_; }

  // A weight that is stored in codes, or as half floats: what DequantizeLinear or Cast reads.
  struct Stored {
    Tensor tensor;  // int8 where it has scales
    std::vector<float> scales;
    std::vector<int64_t> zero_points;
    int64_t axis = 0;
  };
  std::optional<Stored> StoredCodes(const std::string& value) const;
  // The same of codes of 8 bits, and constants that say their scales along the axis and zero points
  // (empty: none). nullopt: they are no constants, or more than one for each index.
  std::optional<Stored> MakeStored(const Tensor& tensor, const std::string& scale,
                                   const std::string& zero_point, int64_t axis) const;
  // Whether Codes8() can be had of the value: computed ones, a stored constant of one scale, a
  // number.
  bool HasCodes(const std::string& value) const;
  int64_t Codes8(const std::string& value, const AxisOrder& order);
  // The codes that the float value is dequantized from, one scale for all; null: none.
  const std::string* CodesOf(const std::string& value) const;
  CodeScale ScaleOf(const std::string& codes) const;

  // --- Tensors. In codes, values are what their codes are.

  int64_t Get(const std::string& value, const AxisOrder& order);
  int64_t Plain(const std::string& value) { return Get(value, PlainOrder(RankOf(value))); }
  // As the input of an operator that treats all elements alike: of the rank, broadcast.
  int64_t Aligned(const std::string& value, const AxisOrder& order);
  // An order in which all inputs are held already; the plain one where there is none.
  AxisOrder CommonOrder(const std::vector<std::string>& inputs, int64_t rank) const;
  std::vector<AxisOrder> OrdersOf(const std::string& value) const;

  int64_t AddConstant(const std::string& name, Tensor tensor);
  int64_t AddCodes(const std::string& name, const Stored& stored);
  int64_t AddInts(const std::vector<int64_t>& values);     // int32 [n]
  int64_t AddInt(const std::string& what, int64_t value);  // int32 []
  int64_t AddFloat(float value);
  const TfliteTensor& tensor(int64_t t) const { return builder_.tensor(t); }

  // Adds an operator of one output of the shape; its type and scale are those of `like`.
  int64_t Emit(const std::string& type, std::vector<int64_t> inputs, Shape shape, int64_t like,
               TfliteOptions options = {});
  int64_t EmitTyped(const std::string& type, std::vector<int64_t> inputs, Shape shape, DType dtype,
                    TfliteOptions options = {});
  // Functions of floats: the result has the shape of the first input.
  int64_t Float(const std::string& type, std::vector<int64_t> inputs, TfliteOptions options = {});
  int64_t Times(int64_t a, int64_t b) {
    return Float("MUL", {a, b}, {TfliteOptionsKind::kMul, {}});
  }
  int64_t Plus(int64_t a, int64_t b) { return Float("ADD", {a, b}, {TfliteOptionsKind::kAdd, {}}); }
  int64_t Cast(int64_t t, DType to);  // the tensor itself where it has the type
  // Lists of int32: the shape of the tensor; numbers that the model computes; `count` elements of a
  // list; lists of `count` elements in all, one behind the other.
  int64_t ShapeTensor(int64_t t);
  int64_t Computed32(const std::string& value) { return Cast(Plain(value), DType::kInt32); }
  int64_t Part32(int64_t list, int64_t begin, int64_t count);
  int64_t Joined32(std::vector<int64_t> lists, int64_t count);
  int64_t EmitCodes(const std::string& type, std::vector<int64_t> inputs, Shape shape,
                    CodeScale scale, TfliteOptions options = {});
  // A tensor that an operator of several outputs makes: of the type, or of that and the scale of
  // `like`.
  int64_t AddLike(Shape shape, DType dtype) { return AddMade("part", std::move(shape), dtype, {}); }
  int64_t AddLike(Shape shape, int64_t like);
  void EmitSeveral(const std::string& type, std::vector<int64_t> inputs,
                   const std::vector<int64_t>& outputs, TfliteOptions options = {});
  // The operator's result, with its shape in the order: in codes of `result_scale`, else of the
  // value's type.
  int64_t EmitResult(const std::string& type, std::vector<int64_t> inputs, const AxisOrder& order,
                     TfliteOptions options = {});
  int64_t Transposed(int64_t t, const AxisOrder& order);
  int64_t Reshaped(int64_t t, const Shape& shape);
  int64_t Requantized(int64_t t, CodeScale scale);
  int64_t Dequantized(int64_t t);

  // `t` is the operator's result. Codes of another scale than its own are converted.
  void Define(const AxisOrder& order, int64_t t);
  // The same of an output of several.
  void DefineOutput(size_t output, const AxisOrder& order, int64_t t);
  // `t` are codes of the result, which is dequantized where floats are read.
  void DefineCodes(const AxisOrder& order, int64_t t) { DefineCodes(result_, order, t); }
  // The result is `source` with its axes in another order.
  void DefineTransposed(const std::string& source, const AxisOrder& order);
  void DefineSame(const std::string& source) {
    DefineTransposed(source, PlainOrder(RankOf(source)));
  }

  void Quantize(const Node& node);    // QuantizeLinear
  void Dequantize(const Node& node);  // DequantizeLinear

  std::string Finish();  // the file

 private:
  struct Alias {
    std::string source;
    AxisOrder order;
  };
  void AddInputs();
  void ReadScales();
  std::optional<CodeScale> ScaleOfNode(const Node& node) const;
  // What it is transposed of; through DequantizeLinear to its codes where `to_codes`.
  Alias Resolve(const std::string& value, bool to_codes) const;
  int64_t GetResolved(const std::string& value, const AxisOrder& order, bool to_codes);
  int64_t AlignedTo(const std::string& value, const AxisOrder& order, bool to_codes);
  int64_t MakeHeld(const std::string& root, const AxisOrder& order);
  int64_t MakeConstant(const std::string& name, const Tensor& tensor);
  int64_t AddStored(const std::string& name, const Stored& stored);
  int64_t OutputTensor(const ValueInfo& output, std::set<int64_t>& taken);
  void DefineCodes(const std::string& value, const AxisOrder& order, int64_t t);
  void FindBias();
  void FindActivation();
  bool ReadsCodes() const;
  bool IsCode(const std::string& value) const { return scales_.contains(value); }
  // Whether the value is codes itself, moved or not.
  bool HoldsCodes(const std::string& value) const { return IsCode(Resolve(value, false).source); }
  int64_t AddMade(const std::string& type, Shape shape, DType dtype,
                  const std::optional<CodeScale>& scale);

  const Model& model_;
  const int64_t opset_;
  const GraphIndex index_;
  std::unordered_map<std::string, ValueType> types_;
  std::unordered_map<std::string, Tensor> shape_values_;
  TfliteBuilder builder_;
  std::unordered_map<std::string, std::map<AxisOrder, int64_t>> held_;
  std::unordered_map<std::string, Alias> aliases_;
  std::unordered_map<std::string, CodeScale> scales_;         // of values of codes
  std::unordered_map<std::string, std::string> dequantized_;  // floats by their codes
  std::vector<TfliteBuilder::Entry> inputs_;
  FreshNames names_;
  std::unordered_set<const Node*> done_;

  const Node* node_ = nullptr;
  bool in_codes_ = false;
  int8_t activation_ = 0;
  std::string bias_;
  std::string result_;
  std::optional<CodeScale> result_scale_;
  Codes codes_ = Codes::kNever;
};

// Within 32 bits, which no dimension is beyond: numbers that mean "to the end" still do.
int32_t Narrow(int64_t number);

// What the kernels of functions into [0, 1) want their codes to be.
inline constexpr CodeScale kUnitScale = {1.0f / 256, -128};

struct TfliteLoweringInfo {
  const char* op_type;
  void (*lower)(TfliteLowering& lowering);
  TfliteLowering::Codes codes = TfliteLowering::Codes::kNever;
  bool fuses = false;
};

// Convolutions; pools; products; functions of elements; reductions and normalizations; what moves
// elements, what takes some, and what samples images; layers of sequences.
std::span<const TfliteLoweringInfo> LowerConvOps();
std::span<const TfliteLoweringInfo> LowerPoolOps();
std::span<const TfliteLoweringInfo> LowerMatMulOps();
std::span<const TfliteLoweringInfo> LowerElementwiseOps();
std::span<const TfliteLoweringInfo> LowerReduceOps();
std::span<const TfliteLoweringInfo> LowerLayoutOps();
std::span<const TfliteLoweringInfo> LowerSelectOps();
std::span<const TfliteLoweringInfo> LowerImageOps();
std::span<const TfliteLoweringInfo> LowerRecurrentOps();

}  // namespace pared
