// What the fusion rules share: a view of the model in which quantized values have parameters, and
// the list of INT8 nodes that will take the place of what they match.
//
// Each quantized ONNX value may have an INT8 twin: the same codes as uint8 (an int8 code plus 128),
// planar or row-major as its maker likes. Nodes of the domain "pared" read and make twins only.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "evaluator/executor.h"
#include "model/graph.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"

namespace pared {

// real = scale * (code - zero_point), where code is the twin's: 0 to 255.
struct Quantized {
  std::string name;  // the ONNX value
  float scale = 1.0f;
  int32_t zero_point = 0;
  bool is_signed = false;  // the ONNX value is int8: its code is the twin's less 128

  bool SameParameters(const Quantized& other) const {
    return scale == other.scale && zero_point == other.zero_point && is_signed == other.is_signed;
  }
};

// The codes that a Relu or Clip before a QuantizeLinear lets pass.
struct CodeLimits {
  int32_t low = 0, high = 255;
};

class FuseGraph {
 public:
  FuseGraph(Model model, const ExecutorOptions& options);

  const Graph& graph() const { return model_.graph; }
  const Model& model() const { return model_; }
  const ExecutorOptions& options() const { return options_; }

  const Node* producer(const std::string& value) const { return index_.producer(value); }
  const Tensor* constant(const std::string& value) const;
  // The constant that `value` is, or whose codes it is the DequantizeLinear of. Null: neither.
  const Tensor* ConstantBehind(const std::string& value) const;
  // Whether `value` has one reader and is no output of the graph.
  bool IsInner(const std::string& value) const;
  // Nothing: not known, or not in every dimension.
  std::optional<Shape> ShapeOf(const std::string& value);
  // -1: not known.
  int64_t RankOf(const std::string& value);

  // The value that QuantizeLinear makes; nothing where its parameters are not constant scalars of
  // uint8 or int8.
  std::optional<Quantized> QuantizedBy(const Node& quantize) const;
  // The value that DequantizeLinear turned into `value`; nothing as above.
  std::optional<Quantized> DequantizedFrom(const std::string& value) const;

  // The name of the twin of `value`, converted to where no INT8 node makes it.
  std::string Twin(const Quantized& value);
  // `node`'s first output becomes the twin of `value`.
  void MakeTwin(const Quantized& value, Node node);
  // The twin of `same` is that of `value` too: their codes are equal.
  void Alias(const Quantized& value, const Quantized& same);
  // Adds `node`, whose one output gets the name that is returned.
  std::string Add(Node node);
  // `node` takes the place of `replaced`, whose outputs it makes.
  void Replace(const Node& replaced, Node node);
  // Notes that an INT8 node computes what `node` did.
  void MarkFused(const Node& node) { fused_.insert(&node); }
  bool IsFused(const Node& node) const { return fused_.contains(&node); }
  bool HasMadeTwin(const std::string& value) const { return made_.contains(value); }

  // The model with the INT8 nodes in place and what nobody reads taken out.
  Model Finish();

 private:
  const ValueType* TypeOf(const std::string& value);
  std::optional<Quantized> Parameters(const Node& node, const std::string& value) const;

  Model model_;
  ExecutorOptions options_;
  GraphIndex index_;
  FreshNames names_;
  std::optional<std::unordered_map<std::string, ValueType>> types_;  // inferred on first use
  std::unordered_map<std::string, std::string> twin_of_;             // by ONNX value
  std::unordered_set<std::string> made_;  // ONNX values that INT8 nodes make
  std::unordered_set<const Node*> fused_, replaced_;
  std::vector<Node> added_;
};

// Attributes of the nodes that fusion makes.
void SetInt(Node& node, const std::string& name, int64_t value);
void SetFloat(Node& node, const std::string& name, float value);
void SetInts(Node& node, const std::string& name, std::vector<int64_t> value);
void SetString(Node& node, const std::string& name, std::string value);
void SetTensor(Node& node, const std::string& name, Tensor value);
// A node of the domain "pared".
Node MakeInt8Node(const std::string& op_type, const std::string& name,
                  std::vector<std::string> inputs);
// The parameters of input or output number `index`: "scale_x0", "zero_point_x0"; `y` is the output.
void SetParameters(Node& node, const std::string& suffix, const Quantized& value);

void SetRange(Node& node, const CodeLimits& range);

// The rules. Each looks at a QuantizeLinear `quantize` whose input `value` is made by `node`, after
// a Relu or Clip within `range` was taken off, and says whether it made the twin of `output`.
struct Match {
  const Node* node = nullptr;
  std::string value;  // the float value before Relu or Clip
  Quantized output;
  CodeLimits range;
};
bool FuseConvolution(FuseGraph& graph, const Match& match);    // Conv
bool FuseMatrixProduct(FuseGraph& graph, const Match& match);  // MatMul, Gemm
bool FuseBinary(FuseGraph& graph, const Match& match);         // Add, Sub, Mul, Div of two values
bool FusePooling(FuseGraph& graph, const Match& match);
bool FuseConcat(FuseGraph& graph, const Match& match);
bool FuseMovement(FuseGraph& graph, const Match& match);  // Reshape, Transpose, Split, ...

// The codes of `to` by those of `from`; nothing where they are the same.
std::optional<Tensor> RequantizeCodes(const Quantized& from, const Quantized& to);

// `node` makes codes with the parameters of `made`; the twin of `output` is what it makes,
// converted where the parameters differ.
void MakeConverted(FuseGraph& graph, Node node, const Quantized& made, const Quantized& output);

// Convolutions and matrix products with INT8 inputs whose result is read as float.
void FuseFloatResults(FuseGraph& graph);

// Integer products of dynamically quantized activations, with what scales them to float.
void FuseDynamic(FuseGraph& graph);

// Joins tables and sums to the convolutions before them, in a graph whose rules have been applied.
void JoinToProducts(Graph& graph);

// Functions of one value, however many operators they are spelt with, as a table of 256 codes.
class TableFusion {
 public:
  explicit TableFusion(FuseGraph& graph) : graph_(graph) {}
  // True where the twin of `output`, which QuantizeLinear makes, is now a table of another's.
  bool Fuse(const Node& quantize, const Quantized& output);

 private:
  // The quantized value that all of `value` follows from, by operators that act on each element
  // alone; "": a constant; nothing: no such value.
  std::optional<std::string> RootOf(const std::string& value);
  std::optional<std::string> FindRoot(const std::string& value);
  // `rank_min` becomes the largest rank of a constant among the operands.
  std::optional<std::string> RootOfOperands(const Node& node, int64_t& rank_min);

  FuseGraph& graph_;
  std::unordered_map<std::string, std::optional<std::string>> roots_;
  std::unordered_map<std::string, Quantized> quantized_;
};

}  // namespace pared
