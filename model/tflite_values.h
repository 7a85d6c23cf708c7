// The values of a TensorFlow Lite model as an ONNX graph comes to hold them.
//
// TensorFlow Lite lays images out as [N,H,W,C], ONNX's operators as [N,C,H,W]. A value of four
// axes is held in either form or both; an operator takes the one that it needs, and where it can do
// with both the one that is there, so that few Transposes are written.
//
// A quantized value is held as float: what makes it writes QuantizeLinear and DequantizeLinear.

#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "model/rewrite.h"
#include "model/tflite_file.h"

namespace pared {

enum class Form : uint8_t { kPlain, kChannels };  // as the file has it; [N,C,H,W]

// Where axis `axis` of [N,H,W,C] lies in [N,C,H,W], and in the form.
int64_t ChannelsAxis(int64_t axis);
inline int64_t AxisIn(Form form, int64_t axis) {
  return form == Form::kChannels ? ChannelsAxis(axis) : axis;
}

using NamedAttributes = std::vector<std::pair<std::string, Attribute>>;
NamedAttributes FloatAttribute(const std::string& name, float value);
NamedAttributes TextAttribute(const std::string& name, const std::string& value);
NamedAttributes IntAttribute(const std::string& name, int64_t value);
NamedAttributes IntsAttribute(const std::string& name, std::vector<int64_t> values);
NamedAttributes GraphAttribute(const std::string& name, GraphPtr value);
NamedAttributes operator+(NamedAttributes attributes, const NamedAttributes& more);

class TfliteValues {
 public:
  // The graph's inputs are there from the beginning. `file` outlives this.
  explicit TfliteValues(const TfliteFile& file);

  // Errors are told of this operator from now on.
  void Begin(const TfliteOp& op);
  [[noreturn]] void Refuse(const std::string& why) const;
  void Require(bool holds, const std::string& why) const {
    if (!holds) Refuse(why);
  }

  const TfliteTensor& tensor(int64_t t) const { return file_.tensors[static_cast<size_t>(t)]; }
  // The dimension; -1: the caller decides.
  int64_t Dim(int64_t t, int64_t axis) const { return tensor(t).shape[static_cast<size_t>(axis)]; }
  // `axis` of a tensor of `rank` axes, counted from the front. Refuses what is beyond.
  int64_t Axis(int64_t axis, int64_t rank) const;

  // Whether what is computed is stored in codes of 8 bits. Refuses those of 32.
  bool HasCodes(int64_t t) const;
  // Codes of 16 bits, whose rounding is left out: ONNX of opset 17 has none.
  bool HasWideCodes(int64_t t) const {
    return tensor(t).is_quantized() && tensor(t).dtype == DType::kInt16;
  }
  // Whether the value is of floats here: codes are held as what they stand for.
  bool HoldsFloats(int64_t t) const {
    return tensor(t).dtype == DType::kFloat32 || HasCodes(t) || HasWideCodes(t);
  }
  // What the value is of here.
  DType HeldType(int64_t t) const { return HoldsFloats(t) ? DType::kFloat32 : tensor(t).dtype; }
  // Whether the operator's first output is.
  bool MakesFloats() const { return HoldsFloats(op_->outputs[0]); }
  bool IsConstant(int64_t t) const { return tensor(Source(t)).constant.defined(); }
  // Of a constant of integers. Refuses what is none; `name` says what it is.
  std::vector<int64_t> Integers(int64_t t, const std::string& name) const;

  // The value's name; "" where it is left out (-1). Adds the initializer or the Transpose that it
  // takes.
  std::string Get(int64_t t, Form form);
  std::string Plain(int64_t t) { return Get(t, Form::kPlain); }
  std::string Channels(int64_t t) { return Get(t, Form::kChannels); }
  // With its axes in another order, whatever its rank.
  std::string Permuted(int64_t t, const std::vector<int64_t>& order);
  // As an int64 tensor, which ONNX has for shapes.
  std::string Int64(int64_t t);
  std::string AddInt64(const std::vector<int64_t>& values);
  std::string AddInitializer(const std::string& name, Tensor tensor);

  // Whether a SQUARED_DIFFERENCE is of these two: what a variance begins with.
  bool IsDeviation(int64_t value, int64_t mean) const {
    return deviations_.contains(std::minmax(value, mean));
  }
  // What an operator that treats all elements alike best reads and writes: kChannels where one of
  // `inputs` is held so only and all can be.
  Form CommonForm(const std::vector<int64_t>& inputs, int64_t output) const;
  // In the form that it is held in where the order of elements is that of the plain one.
  std::string InPlainOrder(int64_t t);
  // The same of an input that is broadcast against others of the form.
  std::string Aligned(int64_t t, Form form);

  // Adds a node called after `base` and returns what it makes.
  std::string Emit(const std::string& op_type, std::vector<std::string> inputs,
                   const std::string& base, const NamedAttributes& attributes = {});
  std::vector<std::string> EmitSeveral(const std::string& op_type, std::vector<std::string> inputs,
                                       const std::vector<std::string>& bases,
                                       const NamedAttributes& attributes = {});
  std::string Cast(const std::string& value, DType to);
  // What nodes of `t` are called after.
  std::string BaseOf(int64_t t) const;

  // `value` is tensor `t`, before it is quantized.
  void Define(int64_t t, Form form, const std::string& value);
  void DefinePlain(const TfliteOp& op, const std::string& value) {
    Define(op.outputs[0], Form::kPlain, value);
  }
  // Tensor `t` is `source` with its axes in another order. Written where it is read: joined with
  // the Transpose between the forms, or not at all.
  void DefineTransposed(int64_t t, int64_t source, const std::vector<int64_t>& order);
  // Tensor `t` is what `source` is, constant or not.
  void DefineAs(int64_t t, int64_t source);

  // By the number that an operator has for it.
  const TfliteGraph& Part(int64_t number) const { return file_.parts.at(number); }
  // Operators are those of `graph` from now on, its inputs these values, till Leave. Refuses a
  // graph that runs itself, and files that run too much so, or too deep.
  void Enter(const TfliteGraph& graph, const std::vector<std::string>& inputs);
  void Leave();
  // What is known of the graph's tensors, which holds for one run of it only.
  void Forget(const TfliteGraph& graph);
  // What is added from now on makes up a graph of its own, which may read what is around it by
  // name.
  void BeginGraph();
  GraphPtr EndGraph(std::vector<ValueInfo> inputs, const std::vector<std::string>& outputs);
  // Of an input of such a graph.
  std::string FreshName(const std::string& base) { return names_.Make(base); }

  // The whole model, with the file's outputs.
  Model Finish();

 private:
  struct Held {
    std::string plain, channels;              // float where the tensor is quantized
    std::string plain_codes, channels_codes;  // of quantized ones
    // What is transposed by `order` to be the plain form; empty: nothing is known of that kind.
    std::string origin;
    std::vector<int64_t> order;
    std::string& In(Form form) { return form == Form::kPlain ? plain : channels; }
    std::string& CodesIn(Form form) { return form == Form::kPlain ? plain_codes : channels_codes; }
  };

  int64_t Source(int64_t t) const;
  const Held* Find(int64_t t) const;
  // Refuses a tensor whose shape in the file has other axes than it gets.
  void CheckRank(int64_t t, int64_t rank) const;
  // The value with the axes of its plain form in the order; a Transpose is called by the suffix.
  std::string Reordered(int64_t t, const std::vector<int64_t>& order, const char* suffix);
  // A value of which `t`, transposed by `order`, is a transposition, and the order of that.
  std::pair<std::string, std::vector<int64_t>> OriginOf(int64_t t, std::vector<int64_t> order);
  std::string AddConstant(int64_t t, const std::vector<int64_t>& order);
  std::string Dequantize(int64_t t, const std::string& codes, int64_t axis);
  std::pair<std::string, std::string> AddScale(int64_t t);
  void AddInputs();
  std::string OutputOf(int64_t t);
  // Between codes of 16 bits, of inputs and outputs, and what they stand for.
  std::string AddWideScale(int64_t t);
  std::string FromWideCodes(int64_t t, const std::string& codes);
  std::string ToWideCodes(int64_t t, const std::string& value);

  const TfliteFile& file_;
  std::set<std::pair<int64_t, int64_t>> deviations_;  // the lower place first
  Model model_;
  std::vector<Graph> around_;  // the graphs that the one of model_ lies in
  std::vector<std::pair<const TfliteGraph*, const TfliteOp*>> entered_;  // and by which operator
  std::unordered_set<const TfliteGraph*> run_;
  size_t cost_ = 0;  // operators and tensors of what was run
  FreshNames names_{Model()};
  std::unordered_map<int64_t, Held> held_;
  std::unordered_map<int64_t, int64_t> sources_;
  std::map<std::pair<int64_t, std::vector<int64_t>>, std::string> permuted_;
  std::unordered_map<int64_t, std::pair<std::string, std::string>> scales_;
  const TfliteOp* op_ = nullptr;
};

}  // namespace pared
