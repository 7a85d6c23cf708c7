// The walk over the graph, and what all operators' inference shares.

#include "model/infer_shapes.h"

#include <algorithm>

#include "model/domain.h"
#include "model/infer_context.h"
#include "model/shape_values.h"

namespace pared {
namespace {

using Values = std::unordered_map<std::string, Known>;

constexpr size_t kElementsMax = 256;  // of a value that is followed element by element

std::optional<Dims> ElementsOf(const Tensor& tensor) {
  if (tensor.rank() > 1 || tensor.count() > static_cast<int64_t>(kElementsMax)) return {};
  Dims elements;
  // Negative elements matter too: an axis, the -1 of Reshape.
  if (tensor.dtype() == DType::kInt64) {
    for (const int64_t x : tensor.data<int64_t>()) elements.push_back(Element(x));
  } else if (tensor.dtype() == DType::kInt32) {
    for (const int32_t x : tensor.data<int32_t>()) elements.push_back(Element(x));
  } else {
    return {};
  }
  return elements;
}

Known KnownOf(const Tensor& tensor) {
  Dims dims;
  for (const int64_t dim : tensor.shape()) dims.push_back(Number(dim));
  return {{tensor.dtype(), std::move(dims)}, ElementsOf(tensor), tensor};
}

std::string DimsText(const Dims& dims) {
  std::string text = "[";
  for (const Dim& dim : dims) {
    if (text.size() > 1) text += ", ";
    text += dim.value >= 0 ? std::to_string(dim.value) : dim.param.empty() ? "?" : dim.param;
  }
  return text + "]";
}

// What both say together. Throws where the types contradict. A file may state a shape that its
// nodes do not make, and runs all the same: of another rank, what is made holds; of another size,
// neither.
ValueType Merge(const std::string& name, const ValueType& stated, const ValueType& made) {
  ValueType merged = stated;
  if (stated.dtype == DType::kUndefined) merged.dtype = made.dtype;
  if (made.dtype != DType::kUndefined && merged.dtype != made.dtype) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("is stated to be of type ") + DTypeName(stated.dtype) +
                    ", but is made as " + DTypeName(made.dtype),
                name);
  }
  if (!made.shape.has_value()) return merged;
  if (!stated.shape.has_value() || stated.shape->size() != made.shape->size()) {
    merged.shape = made.shape;
    return merged;
  }
  for (size_t i = 0; i < made.shape->size(); ++i) {
    Dim& dim = (*merged.shape)[i];
    const Dim& other = (*made.shape)[i];
    if (IsNumber(dim) && IsNumber(other) && dim.value != other.value) {
      dim = AnyDim();
    } else if (IsNumber(other) || (dim.value < 0 && dim.param.empty())) {
      dim = other;
    }
  }
  return merged;
}

// The operator of ONNX whose inference holds for `node` too; empty: there is none. Of com.microsoft
// those that onnxruntime's optimizations and quantizers write, of ai.onnx.ml those that pared runs;
// a name with its domain is that operator's own.
std::string StandardName(const Node& node) {
  if (IsDefaultDomain(node.domain)) return node.op_type;
  static const std::unordered_map<std::string, std::string> kSame = {
      {"FusedConv", "Conv"},
      {"FusedGemm", "Gemm"},
      {"FusedMatMul", "com.microsoft.FusedMatMul"},
      {"MatMulNBits", "com.microsoft.MatMulNBits"},
      {"MatMulIntegerToFloat", "com.microsoft.MatMulIntegerToFloat"},
      {"DynamicQuantizeMatMul", "com.microsoft.DynamicQuantizeMatMul"},
      {"DynamicQuantizeLSTM", "LSTM"},
      {"Attention", "com.microsoft.Attention"},
      {"MultiHeadAttention", "com.microsoft.MultiHeadAttention"},
      {"GroupQueryAttention", "com.microsoft.MultiHeadAttention"},
      {"RotaryEmbedding", "RotaryEmbedding"},
      {"Gelu", "Relu"},
      {"FastGelu", "Relu"},
      {"QuickGelu", "Relu"},
      {"BiasGelu", "Relu"},
      {"SkipLayerNormalization", "Relu"},
      {"SkipSimplifiedLayerNormalization", "Relu"}};
  const bool is_ml = node.op_type == "Scaler" || node.op_type == "ArrayFeatureExtractor";
  if (node.domain == "ai.onnx.ml" && is_ml) return "ai.onnx.ml." + node.op_type;
  const auto same = kSame.find(node.op_type);
  return node.domain == "com.microsoft" && same != kSame.end() ? same->second : "";
}

class Inference {
 public:
  explicit Inference(const Model& model) : opset_(model.Opset("")) {}

  // `given`: of the first inputs, what they are in addition to what they are stated to be.
  Values InferGraph(const Graph& graph, const Values* outer,
                    const std::vector<DType>& given = {}) const;

 private:
  struct Scope {
    const Values* outer;
    Values values;
  };
  static const Known* Find(const Scope& scope, const std::string& name);
  void InferNode(const Node& node, Scope& scope) const;
  void InferIf(InferContext& context, const Scope& scope) const;
  void InferBody(InferContext& context, const Scope& scope) const;
  static Values VisibleIn(const Scope& scope);
  static void State(const ValueInfo& info, Scope& scope);

  int64_t opset_;
};

const Known* Inference::Find(const Scope& scope, const std::string& name) {
  if (const auto it = scope.values.find(name); it != scope.values.end()) return &it->second;
  if (scope.outer == nullptr) return nullptr;
  const auto it = scope.outer->find(name);
  return it == scope.outer->end() ? nullptr : &it->second;
}

void Inference::State(const ValueInfo& info, Scope& scope) {
  if (info.dtype == DType::kUndefined && !info.shape.has_value()) return;
  Known& known = scope.values[info.name];
  known.type = Merge(info.name, {info.dtype, info.shape}, known.type);
}

Values Inference::VisibleIn(const Scope& scope) {
  Values visible = scope.outer == nullptr ? Values() : *scope.outer;
  for (const auto& [name, known] : scope.values) visible.insert_or_assign(name, known);
  return visible;
}

// What holds in all branches.
void InferIfOutput(Known& output, const Known& branch, bool is_first) {
  if (is_first) {
    output = branch;
    return;
  }
  output.elements.reset();
  output.constant = Tensor();
  if (output.type.dtype != branch.type.dtype) output.type.dtype = DType::kUndefined;
  const std::optional<Dims>& other = branch.type.shape;
  if (!other.has_value() || !output.type.shape.has_value() ||
      other->size() != output.type.shape->size()) {
    output.type.shape.reset();
    return;
  }
  for (size_t i = 0; i < other->size(); ++i) {
    Dim& dim = (*output.type.shape)[i];
    if (!Same(dim, (*other)[i])) dim = AnyDim();
  }
}

void Inference::InferIf(InferContext& context, const Scope& scope) const {
  const Values visible = VisibleIn(scope);
  bool is_first = true;
  for (const char* branch : {"then_branch", "else_branch"}) {
    const GraphPtr graph = context.node.GraphOf(branch);
    if (graph == nullptr) context.Fail(std::string("the attribute ") + branch + " is missing");
    const Values values = InferGraph(*graph, &visible);
    if (graph->outputs.size() != context.outputs.size()) {
      context.Fail(std::string(branch) + " has another number of outputs than the node");
    }
    for (size_t i = 0; i < context.outputs.size(); ++i) {
      const Scope inner{&visible, values};
      const Known* known = Find(inner, graph->outputs[i].name);
      InferIfOutput(context.outputs[i], known == nullptr ? Known() : *known, is_first);
    }
    is_first = false;
  }
}

// Loop and Scan. What they carry keeps its type, but its shape may change from one iteration to the
// next; what they collect gets an axis.
void Inference::InferBody(InferContext& context, const Scope& scope) const {
  const Node& node = context.node;
  const GraphPtr body = node.GraphOf("body");
  if (body == nullptr) context.Fail("the attribute body is missing");
  const bool is_loop = node.op_type == "Loop";
  const int64_t ahead = is_loop ? 2 : 0;  // the count of iterations and the condition
  const int64_t given_count = std::ssize(node.inputs);
  const int64_t scanned = std::clamp<int64_t>(node.Int("num_scan_inputs", 0), 0, given_count);
  const int64_t carried = given_count - ahead - scanned;
  std::vector<DType> given;
  if (is_loop) given = {DType::kInt64, DType::kBool};
  for (size_t i = given.size(); i < node.inputs.size(); ++i) given.push_back(context.dtype(i));
  const Values visible = VisibleIn(scope);
  const Scope inner{&visible, InferGraph(*body, &visible, given)};
  for (size_t i = 0; i < context.outputs.size(); ++i) {
    const size_t made = i + (is_loop ? 1 : 0);  // after the condition
    if (made >= body->outputs.size()) context.Fail("its body has too few outputs");
    const Known* known = Find(inner, body->outputs[made].name);
    if (known == nullptr) continue;
    ValueType& type = context.outputs[i].type;
    type.dtype = known->type.dtype;
    if (static_cast<int64_t>(i) < carried || node.attributes.contains("scan_output_axes")) continue;
    if (!known->type.shape.has_value()) continue;
    type.shape = known->type.shape;
    type.shape->insert(type.shape->begin(), AnyDim());
  }
}

void Inference::InferNode(const Node& node, Scope& scope) const {
  const std::string op = StandardName(node);
  if (op.empty()) return;
  std::vector<const Known*> inputs;
  for (const std::string& input : node.inputs) {
    inputs.push_back(input.empty() ? nullptr : Find(scope, input));
  }
  InferContext context(node, opset_, std::move(inputs));
  if (op == "If") {
    InferIf(context, scope);
  } else if (op == "Loop" || (op == "Scan" && opset_ >= 9)) {
    InferBody(context, scope);
  } else if (op == "Constant" && !context.outputs.empty()) {
    if (const Tensor* value =
            node.attributes.contains("value") ? node.TensorOf("value") : nullptr) {
      context.outputs[0] = KnownOf(*value);
    }
  }
  for (const InferTable* table : {&ElementwiseInference(), &ComputeInference(), &LayoutInference(),
                                  &IndexingInference(), &SamplingInference()}) {
    const auto it = table->find(op);
    if (it != table->end() && !context.outputs.empty()) it->second(context);
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    const std::string& name = node.outputs[i];
    if (name.empty()) continue;
    Known& known = scope.values[name];
    known.type = Merge(name, known.type, context.outputs[i].type);
    known.elements = std::move(context.outputs[i].elements);
    known.constant = std::move(context.outputs[i].constant);
  }
}

Values Inference::InferGraph(const Graph& graph, const Values* outer,
                             const std::vector<DType>& given) const {
  Scope scope{outer, {}};
  for (const auto& [name, initializer] : graph.initializers) {
    scope.values[name] = KnownOf(initializer.tensor);
  }
  for (const auto& [name, sparse] : graph.sparse_initializers) {
    Dims dims;
    for (const int64_t dim : sparse.dims) dims.push_back(Number(dim));
    scope.values[name].type = {sparse.values.dtype(), std::move(dims)};
  }
  for (size_t i = 0; i < graph.inputs.size(); ++i) {
    const ValueInfo& input = graph.inputs[i];
    State(input, scope);
    if (i >= given.size() || given[i] == DType::kUndefined) continue;
    Known& known = scope.values[input.name];
    known.type = Merge(input.name, known.type, {given[i], {}});
  }
  for (const ValueInfo& output : graph.outputs) State(output, scope);
  for (const auto& [name, value] : graph.values) State(value, scope);
  for (const Node& node : graph.nodes) InferNode(node, scope);
  return std::move(scope.values);
}

}  // namespace

DType InferContext::dtype(size_t i) const {
  return i < inputs_.size() && inputs_[i] != nullptr ? inputs_[i]->type.dtype : DType::kUndefined;
}

const Dims* InferContext::dims(size_t i) const {
  if (i >= inputs_.size() || inputs_[i] == nullptr || !inputs_[i]->type.shape) return nullptr;
  return &*inputs_[i]->type.shape;
}

const Dims* InferContext::elements(size_t i) const {
  if (i >= inputs_.size() || inputs_[i] == nullptr || !inputs_[i]->elements) return nullptr;
  return &*inputs_[i]->elements;
}

std::optional<std::vector<float>> InferContext::floats(size_t i) const {
  if (i >= inputs_.size() || inputs_[i] == nullptr) return {};
  const Tensor& constant = inputs_[i]->constant;
  if (constant.dtype() != DType::kFloat32) return {};
  const std::span<const float> values = constant.data<float>();
  return std::vector<float>(values.begin(), values.end());
}

std::optional<std::vector<int64_t>> InferContext::numbers(size_t i) const {
  const Dims* known = elements(i);
  if (known == nullptr) return {};
  std::vector<int64_t> values;
  for (const Dim& dim : *known) {
    const std::optional<int64_t> number = ElementNumber(dim);
    if (!number.has_value()) return {};
    values.push_back(*number);
  }
  return values;
}

void InferContext::Set(size_t output, DType output_dtype, std::optional<Dims> shape) {
  if (output >= outputs.size()) return;
  outputs[output].type = {output_dtype, std::move(shape)};
}

void InferContext::Fail(const std::string& message) const {
  throw Error(ErrorCode::kInvalidArgument, message, NodeLabel(node));
}

size_t InferContext::Axis(int64_t axis, size_t rank) const {
  const auto signed_rank = static_cast<int64_t>(rank);
  if (axis < -signed_rank || axis >= signed_rank) {
    Fail("axis " + std::to_string(axis) + " is out of range for rank " + std::to_string(rank) +
         (rank == 0 ? "; it has none"
                    : "; it should be from " + std::to_string(-signed_rank) + " to " +
                          std::to_string(signed_rank - 1)));
  }
  return static_cast<size_t>(axis < 0 ? axis + signed_rank : axis);
}

std::optional<std::vector<int64_t>> InferContext::Axes(size_t i) const {
  if (node.attributes.contains("axes")) return node.Ints("axes");
  if (!has_input(i)) return std::vector<int64_t>();
  return numbers(i);
}

// A negative element is told from an unknown one by a mark where a symbol would stand.
constexpr const char* kNegative = "-";

Dim Element(int64_t value) {
  return Dim{.value = value, .param = value < 0 ? kNegative : "", .unknown = ""};
}

std::optional<int64_t> ElementNumber(const Dim& element) {
  if (element.value < 0 && element.param != kNegative) return {};
  return element.value;
}

Dim DimOfElement(const Dim& element) {
  return element.value < 0 && element.param == kNegative ? AnyDim() : element;
}

bool Same(const Dim& a, const Dim& b) {
  if (IsNumber(a) || IsNumber(b)) return a.value == b.value;
  return !a.param.empty() && a.param == b.param;
}

Dim Plus(const Dim& a, const Dim& b) {
  int64_t sum = 0;
  if (!IsNumber(a) || !IsNumber(b) || __builtin_add_overflow(a.value, b.value, &sum)) {
    return AnyDim();
  }
  return Number(sum);
}

Dim Times(const Dim& a, const Dim& b) {
  if (a.value == 1) return b;
  if (b.value == 1) return a;
  int64_t product = 0;
  if (!IsNumber(a) || !IsNumber(b) || __builtin_mul_overflow(a.value, b.value, &product)) {
    return AnyDim();
  }
  return Number(product);
}

Dims Broadcast(const InferContext& context, const Dims& a, const Dims& b) {
  const Dims& longer = a.size() >= b.size() ? a : b;
  const Dims& shorter = a.size() >= b.size() ? b : a;
  Dims result = longer;
  const size_t offset = longer.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    Dim& dim = result[offset + i];
    const Dim& other = shorter[i];
    if (other.value == 1 || Same(dim, other)) continue;
    if (dim.value == 1 || (!IsNumber(dim) && other.value > 1)) {
      dim = other;
    } else if (IsNumber(dim) && IsNumber(other)) {
      context.Fail("shapes " + DimsText(a) + " and " + DimsText(b) + " do not broadcast");
    } else if (dim.value <= 1) {
      dim = AnyDim();
    }
  }
  return result;
}

std::unordered_map<std::string, ValueType> InferShapes(const Model& model) {
  std::unordered_map<std::string, ValueType> types;
  for (auto& [name, known] : Inference(model).InferGraph(model.graph, nullptr)) {
    if (known.type.dtype == DType::kUndefined && !known.type.shape.has_value()) continue;
    types.emplace(name, std::move(known.type));
  }
  return types;
}

namespace {

// Undefined: not an integer tensor all of whose elements are known.
Tensor IntegersOf(const Known& known) {
  if (!known.elements.has_value() || !known.type.shape.has_value()) return {};
  const Dims& dims = *known.type.shape;
  Shape shape;
  for (const Dim& dim : dims) shape.push_back(dim.value);
  const auto count = static_cast<int64_t>(known.elements->size());
  if (shape.size() > 1 || (shape.empty() ? count != 1 : shape[0] != count)) return {};
  std::vector<int64_t> values;
  for (const Dim& element : *known.elements) {
    const std::optional<int64_t> number = ElementNumber(element);
    if (!number.has_value()) return {};
    values.push_back(*number);
  }
  if (known.type.dtype == DType::kInt64) return Tensor::Make<int64_t>(shape, std::move(values));
  if (known.type.dtype != DType::kInt32) return {};
  std::vector<int32_t> narrow;
  for (const int64_t value : values) {
    if (value != static_cast<int32_t>(value)) return {};
    narrow.push_back(static_cast<int32_t>(value));
  }
  return Tensor::Make<int32_t>(shape, std::move(narrow));
}

}  // namespace

std::unordered_map<std::string, Tensor> InferShapeValues(const Model& model) {
  std::unordered_map<std::string, Tensor> found;
  try {
    for (const auto& [name, known] : Inference(model).InferGraph(model.graph, nullptr)) {
      if (Tensor tensor = IntegersOf(known); tensor.defined()) found.emplace(name, tensor);
    }
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    return {};
  }
  return found;
}

std::unordered_map<std::string, ValueType> ShapesIfConsistent(const Model& model) {
  try {
    return InferShapes(model);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kInvalidArgument) throw;
    return {};  // none of its statements can be relied on
  }
}

}  // namespace pared
