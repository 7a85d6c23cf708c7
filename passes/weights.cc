#include "passes/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "base/error.h"
#include "evaluator/half_floats.h"
#include "passes/float_elements.h"

namespace pared {
namespace {

// Graphs from the outermost to the one looked at, each with its index.
struct Scope {
  const Graph* graph = nullptr;
  const GraphIndex* index = nullptr;
  const Scope* outer = nullptr;
  const Model* model = nullptr;
};

// A constant followed to where it is stored.
struct Found {
  ConstantRef root;
  Tensor stored;
  Shape shape;
  std::vector<int64_t> order;
};

std::optional<Found> Follow(const Scope& scope, const std::string& value);

std::vector<int64_t> IntsOfConstant(const Scope& scope, const std::string& value) {
  const std::optional<Found> found = Follow(scope, value);
  if (!found || found->stored.dtype() != DType::kInt64) return {};
  const std::span<const int64_t> data = found->stored.data<int64_t>();
  return {data.begin(), data.end()};
}

// Row-major strides.
std::vector<int64_t> StridesOf(const Shape& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * shape[i];
  return strides;
}

void ApplyTranspose(const Node& node, Found& found) {
  const size_t rank = found.shape.size();
  std::vector<int64_t> axes(rank);
  for (size_t i = 0; i < rank; ++i) axes[i] = static_cast<int64_t>(rank - 1 - i);
  axes = node.Ints("perm", axes);
  if (axes.size() != rank) {
    throw Error(ErrorCode::kInvalidArgument, "perm must name each axis once", NodeLabel(node));
  }
  const std::vector<int64_t> strides = StridesOf(found.shape);
  Shape shape(rank);
  std::vector<int64_t> steps(rank);
  for (size_t i = 0; i < rank; ++i) {
    if (axes[i] < 0 || axes[i] >= static_cast<int64_t>(rank)) {
      throw Error(ErrorCode::kInvalidArgument, "perm must name each axis once", NodeLabel(node));
    }
    shape[i] = found.shape[static_cast<size_t>(axes[i])];
    steps[i] = strides[static_cast<size_t>(axes[i])];
  }
  std::vector<int64_t> order(static_cast<size_t>(ElementCount(shape)));
  std::vector<int64_t> at(rank, 0);
  int64_t source = 0;
  for (int64_t& element : order) {
    element = found.order.empty() ? source : found.order[static_cast<size_t>(source)];
    for (size_t axis = rank; axis-- > 0;) {  // the odometer of the new shape
      source += steps[axis];
      if (++at[axis] < shape[axis]) break;
      source -= steps[axis] * shape[axis];
      at[axis] = 0;
    }
  }
  found.shape = std::move(shape);
  found.order = std::move(order);
}

// The shape that Reshape makes: 0 copies a dimension, -1 takes what is left.
std::optional<Shape> ReshapedTo(const Shape& from, std::vector<int64_t> wanted) {
  int64_t known = 1;
  std::optional<size_t> open;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == 0 && i < from.size()) wanted[i] = from[i];
    if (wanted[i] < 0) {
      open = i;
    } else {
      known *= wanted[i];
    }
  }
  const int64_t count = ElementCount(from);
  if (open && known > 0) wanted[*open] = count / known;
  for (int64_t dim : wanted) {
    if (dim < 0) return std::nullopt;
  }
  if (ElementCount(wanted) != count) return std::nullopt;
  return wanted;
}

std::optional<Shape> SqueezedTo(const Node& node, const Shape& from, std::vector<int64_t> axes) {
  const bool adds = node.op_type == "Unsqueeze";
  const int64_t rank = static_cast<int64_t>(from.size()) + (adds ? std::ssize(axes) : 0);
  std::vector<bool> named(static_cast<size_t>(rank), false);
  for (int64_t axis : axes) {
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank) return std::nullopt;
    named[static_cast<size_t>(axis)] = true;
  }
  Shape shape;
  size_t taken = 0;
  for (size_t i = 0; i < named.size(); ++i) {
    if (adds) {
      shape.push_back(named[i] ? 1 : from[taken++]);
    } else if (axes.empty() ? from[i] != 1 : !named[i]) {
      shape.push_back(from[i]);
    }
  }
  return shape;
}

// Shape after an operator that moves no element; nullopt: the operator is another, or its
// parameters are not constant.
std::optional<Shape> ReviewedShape(const Scope& scope, const Node& node, const Shape& from) {
  if (node.op_type == "Identity" || node.op_type == "Cast") return from;
  if (node.op_type == "Reshape" && node.inputs.size() > 1) {
    return ReshapedTo(from, IntsOfConstant(scope, node.inputs[1]));
  }
  if (node.op_type == "Flatten") {
    int64_t axis = node.Int("axis", 1);
    if (axis < 0) axis += std::ssize(from);
    if (axis < 0 || axis > std::ssize(from)) return std::nullopt;
    return Shape{ElementCount({from.begin(), from.begin() + axis}),
                 ElementCount({from.begin() + axis, from.end()})};
  }
  if (node.op_type == "Squeeze" || node.op_type == "Unsqueeze") {
    std::vector<int64_t> axes = node.Ints("axes");
    if (node.inputs.size() > 1) axes = IntsOfConstant(scope, node.inputs[1]);
    return SqueezedTo(node, from, axes);
  }
  return std::nullopt;
}

// Whether a Cast only changes the float type.
bool KeepsValues(const Node& node) {
  if (node.op_type != "Cast") return true;
  const int64_t to = node.Int("to", 0);
  return to == static_cast<int64_t>(DType::kFloat32) ||
         to == static_cast<int64_t>(DType::kFloat16) ||
         to == static_cast<int64_t>(DType::kFloat64) ||
         to == static_cast<int64_t>(DType::kBFloat16);
}

std::optional<Found> FollowNode(const Scope& scope, const Node& node) {
  if (!node.domain.empty() && node.domain != "ai.onnx") return std::nullopt;
  if (node.op_type == "Constant") {
    const Tensor* tensor = node.TensorOf("value");
    if (tensor == nullptr) return std::nullopt;
    return Found{{scope.graph, node.outputs[0]}, *tensor, tensor->shape(), {}};
  }
  if (node.inputs.empty() || !KeepsValues(node)) return std::nullopt;
  if (node.op_type != "Transpose" && node.op_type != "Identity" && node.op_type != "Cast" &&
      node.op_type != "Reshape" && node.op_type != "Flatten" && node.op_type != "Squeeze" &&
      node.op_type != "Unsqueeze") {
    return std::nullopt;
  }
  std::optional<Found> found = Follow(scope, node.inputs[0]);
  if (!found) return std::nullopt;
  if (node.op_type == "Transpose") {
    ApplyTranspose(node, *found);
    return found;
  }
  const std::optional<Shape> shape = ReviewedShape(scope, node, found->shape);
  if (!shape) return std::nullopt;
  found->shape = *shape;
  return found;
}

std::optional<Found> Follow(const Scope& scope, const std::string& value) {
  for (const Scope* at = &scope; at != nullptr; at = at->outer) {
    if (const Node* producer = at->index->producer(value)) return FollowNode(*at, *producer);
    if (const Tensor* tensor = ConstantOf(*at->graph, *at->index, value, at->model->ir_version)) {
      return Found{{at->graph, value}, *tensor, tensor->shape(), {}};
    }
    if (IsAmong(at->graph->inputs, value)) return std::nullopt;
  }
  return std::nullopt;
}

// The inputs of `node` that a weight may stand at.
std::vector<size_t> WeightInputs(const Node& node) {
  if (!node.domain.empty() && node.domain != "ai.onnx") return {};
  if (node.op_type == "Conv" || node.op_type == "ConvTranspose") return {1};
  if (node.op_type == "MatMul" || node.op_type == "Gemm") return {1, 0};
  if (IsRecurrent(node)) return {1, 2};
  return {};
}

bool IsFloat(DType dtype) {
  return dtype == DType::kFloat32 || dtype == DType::kFloat16 || dtype == DType::kBFloat16 ||
         dtype == DType::kFloat64;
}

MatrixLayout Rows(int64_t groups, int64_t rows, int64_t k) {
  return {.groups = groups,
          .rows = rows,
          .k = k,
          .k_inner = k,
          .group_stride = rows * k,
          .row_stride = k,
          .outer_stride = 0,
          .inner_stride = 1};
}

// Rows lie across: element (row, k) at k * rows + row.
MatrixLayout Columns(int64_t groups, int64_t rows, int64_t k) {
  return {.groups = groups,
          .rows = rows,
          .k = k,
          .k_inner = 1,
          .group_stride = rows * k,
          .row_stride = 1,
          .outer_stride = rows,
          .inner_stride = 0};
}

std::optional<MatrixLayout> ConvLayout(const Node& node, const Shape& shape) {
  if (shape.size() < 3) return std::nullopt;
  const int64_t groups = node.Int("group", 1);
  const int64_t window = ElementCount({shape.begin() + 2, shape.end()});
  if (groups < 1 || shape[0] % groups != 0) {
    throw Error(ErrorCode::kInvalidArgument,
                "group = " + std::to_string(groups) + " does not divide " +
                    std::to_string(shape[0]) + " channels",
                NodeLabel(node));
  }
  if (node.op_type == "Conv") return Rows(groups, shape[0] / groups, shape[1] * window);
  const int64_t in = shape[0] / groups;
  return MatrixLayout{.groups = groups,
                      .rows = shape[1],
                      .k = in * window,
                      .k_inner = window,
                      .group_stride = in * shape[1] * window,
                      .row_stride = window,
                      .outer_stride = shape[1] * window,
                      .inner_stride = 1};
}

std::optional<MatrixLayout> MatMulLayout(const Node& node, size_t input, const Shape& shape) {
  const bool is_gemm = node.op_type == "Gemm";
  if (shape.size() == 1 && !is_gemm) return Rows(1, 1, shape[0]);
  if (shape.size() < 2 || (is_gemm && shape.size() != 2)) return std::nullopt;
  const int64_t down = shape[shape.size() - 2], across = shape.back();
  const int64_t batch = ElementCount({shape.begin(), shape.end() - 2});
  const bool transposed = is_gemm && node.Int(input == 0 ? "transA" : "transB", 0) != 0;
  // Left: rows of the matrix make output rows. Right: its columns do.
  const bool rows_down = (input == 0) != transposed;
  return rows_down ? Rows(batch, down, across) : Columns(batch, across, down);
}

// Finds the weights of one graph, then of its subgraphs.
class Scanner {
 public:
  explicit Scanner(const Model& model) : model_(model) { Scan(model.graph, nullptr); }
  WeightScan Take() { return std::move(scan_); }

 private:
  void Scan(const Graph& graph, const Scope* outer) {
    const GraphIndex index(graph);
    const Scope scope{&graph, &index, outer, &model_};
    for (const Node& node : graph.nodes) {
      ScanNode(scope, node);
      for (const auto& [name, attribute] : node.attributes) {
        if (const GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) Scan(**one, &scope);
        if (const auto* many = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
          for (const GraphPtr& subgraph : *many) Scan(*subgraph, &scope);
        }
      }
    }
  }

  void ScanNode(const Scope& scope, const Node& node) {
    const std::vector<size_t> inputs = WeightInputs(node);
    if (inputs.empty()) {
      NoteOther(scope, node);
      return;
    }
    bool found_any = false;
    std::string reason;
    for (size_t input : inputs) {
      if (input >= node.inputs.size() || node.inputs[input].empty()) continue;
      std::optional<Found> found = Follow(scope, node.inputs[input]);
      if (!found) continue;
      if (!IsFloat(found->stored.dtype())) {
        reason = std::string("its weight is stored as ") + DTypeName(found->stored.dtype());
        continue;
      }
      const std::optional<MatrixLayout> layout = LayoutOf(node, input, found->shape);
      if (!layout) continue;
      scan_.sites.push_back({scope.graph, &node, input, std::move(found->root),
                             std::move(found->stored), std::move(found->shape),
                             std::move(found->order), *layout});
      found_any = true;
      if (!IsRecurrent(node)) break;  // a product of two constants has one weight
    }
    if (found_any) return;
    scan_.skipped.push_back({&node, reason.empty() ? WhyNoWeight(scope, node) : reason});
  }

  // Products of other forms.
  void NoteOther(const Scope& scope, const Node& node) {
    static const std::unordered_set<std::string> kQuantized = {
        "MatMulInteger",        "ConvInteger",           "QLinearMatMul",
        "QLinearConv",          "MatMulNBits",           "QGemm",
        "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QAttention",
        "DynamicQuantizeLSTM"};
    if (kQuantized.contains(node.op_type)) {
      scan_.skipped.push_back({&node, "it is quantized already"});
      return;
    }
    static const std::unordered_set<std::string> kFused = {"FusedConv", "FusedGemm", "FusedMatMul",
                                                           "Attention"};
    if (node.domain != "com.microsoft" || !kFused.contains(node.op_type)) return;
    if (node.inputs.size() < 2 || !Follow(scope, node.inputs[1])) return;
    scan_.skipped.push_back({&node, node.op_type +
                                        " of com.microsoft holds its weight: give the model as it "
                                        "was before onnxruntime optimized it"});
  }

  // Whether it follows from constants alone.
  static bool IsFixed(const Scope& scope, const Node& node) {
    std::vector<const Node*> open = {&node};
    std::unordered_set<const Node*> seen = {&node};
    while (!open.empty()) {
      const Node* next = open.back();
      open.pop_back();
      for (const std::string& input : next->inputs) {
        if (input.empty() || scope.graph->initializers.contains(input)) continue;
        const Node* producer = scope.index->producer(input);
        if (producer == nullptr) return false;
        if (seen.insert(producer).second) open.push_back(producer);
      }
    }
    return true;
  }

  static std::string WhyNoWeight(const Scope& scope, const Node& node) {
    if (node.inputs.size() < 2) return "has no weight input";
    const Node* producer = scope.index->producer(node.inputs[1]);
    if (producer != nullptr && producer->op_type == "DequantizeLinear") {
      return "its weight is quantized already";
    }
    if (scope.graph->sparse_initializers.contains(node.inputs[1])) {
      return "its weight is stored sparse already; fold_constants expands it where "
             "growth_max_bytes allows";
    }
    if (producer != nullptr) {
      const bool is_stored = producer->op_type == "Constant";  // as no pass reads it
      return "it has no constant weight: \"" + node.inputs[1] + "\" is computed by " +
             NodeLabel(*producer) +
             (!is_stored && IsFixed(scope, *producer) ? ", see fold_constants" : "");
    }
    if (scope.graph->initializers.contains(node.inputs[1])) {
      return "its weight \"" + node.inputs[1] +
             "\" is also a graph input, which a caller may override: see \"freeze_inputs\"";
    }
    return "its weight \"" + node.inputs[1] + "\" is no float constant";
  }

  const Model& model_;
  WeightScan scan_;
};

template <class T>
std::vector<float> Widen(std::span<const T> values) {
  return {values.begin(), values.end()};
}

}  // namespace

WeightScan FindWeights(const Model& model) { return Scanner(model).Take(); }

bool IsRecurrent(const Node& node) {
  return node.op_type == "LSTM" || node.op_type == "GRU" || node.op_type == "RNN";
}

bool IsDepthwise(const WeightSite& site) {
  if (site.node->op_type == "Conv") return site.layout.groups > 1 && site.shape[1] == 1;
  return site.node->op_type == "ConvTranspose" && site.layout.groups > 1 &&
         site.shape[0] == site.layout.groups;
}

std::optional<MatrixLayout> LayoutOf(const Node& node, size_t input, const Shape& shape) {
  if (node.op_type == "Conv" || node.op_type == "ConvTranspose") return ConvLayout(node, shape);
  if (node.op_type == "MatMul" || node.op_type == "Gemm") return MatMulLayout(node, input, shape);
  if (shape.size() != 3) return std::nullopt;  // recurrent: [directions, gates, k]
  return Rows(shape[0], shape[1], shape[2]);
}

std::filesystem::path SpillFolder(const Model& model, const std::filesystem::path& scratch) {
  constexpr int64_t kMemoryBytes = int64_t{128} << 20;
  int64_t bytes = 0;
  const auto add = [&](const Tensor& tensor) {
    bytes += static_cast<int64_t>(tensor.bytes().size());
  };
  for (const auto& [name, initializer] : model.graph.initializers) add(initializer.tensor);
  for (const Node& node : model.graph.nodes) {
    const Tensor* value = node.op_type == "Constant" ? node.TensorOf("value") : nullptr;
    if (value != nullptr) add(*value);
  }
  return bytes > kMemoryBytes ? scratch : std::filesystem::path();
}

void CheckFinite(const Tensor& tensor, const std::string& name) {
  if (!IsFloat(tensor.dtype())) return;
  const FloatElements elements(tensor);
  const std::span<const float> values = elements.get();
  int64_t count = 0, first = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(values[i])) continue;
    if (count++ == 0) first = static_cast<int64_t>(i);
  }
  if (count == 0) return;
  throw Error(ErrorCode::kInvalidArgument,
              std::to_string(count) + " of its " + std::to_string(values.size()) +
                  " elements are NaN or infinite, the first at index " + std::to_string(first),
              "tensor " + name);
}

std::vector<float> ToFloat(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DType::kFloat32: {
      std::vector<float> values(static_cast<size_t>(tensor.count()));
      // Perhaps unaligned; data() would keep an aligned copy of it.
      if (!values.empty()) std::memcpy(values.data(), tensor.bytes().data(), tensor.bytes().size());
      return values;
    }
    case DType::kFloat64: {
      std::vector<float> values;
      for (double value : tensor.data<double>()) values.push_back(static_cast<float>(value));
      return values;
    }
    case DType::kFloat16: {
      std::vector<float> values;
      for (Float16 value : tensor.data<Float16>()) values.push_back(ToFloat(value));
      return values;
    }
    case DType::kBFloat16: {
      std::vector<float> values;
      for (BFloat16 value : tensor.data<BFloat16>()) {
        values.push_back(ToFloat(value));
      }
      return values;
    }
    default:
      throw Error(ErrorCode::kUnsupported,
                  std::string(DTypeName(tensor.dtype())) + " is no float type");
  }
}

int64_t MacsOf(const WeightSite& site, const std::unordered_map<std::string, ValueType>& types) {
  const auto type = types.find(site.node->outputs[0]);
  int64_t outputs = 1;
  if (type != types.end() && type->second.shape) {
    for (const Dim& dim : *type->second.shape) outputs *= std::max<int64_t>(1, dim.value);
  }
  return outputs * site.layout.k;
}

int64_t MacsOf(const Model& model) {
  const auto types = InferShapes(model);
  int64_t macs = 0;
  for (const WeightSite& site : FindWeights(model).sites) macs += MacsOf(site, types);
  return macs;
}

}  // namespace pared
