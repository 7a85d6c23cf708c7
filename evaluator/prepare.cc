// From nodes joined by name to steps over slots.
//
// A name is looked up once, here. Calls of model-local functions are not rewritten into the graph:
// the body's nodes become steps in a name scope of their own, whose inputs are the caller's values.

#include <tbb/parallel_for.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "evaluator/composed_ops.h"
#include "evaluator/half_floats.h"
#include "evaluator/prepared_graph.h"
#include "model/function_call.h"
#include "model/random_ops.h"

namespace pared {
namespace {

// Constants made of constants are computed once when that does not swell the model in memory: a
// ConstantOfShape of a few bytes may stand for gigabytes.
constexpr int64_t kFoldedBytesFree = 64 * 1024;
constexpr int64_t kFoldedGrowth = 8;  // int4 weights become float32

// Nodes with a constant of so many bytes are prepared side by side: packing it takes longer than
// all else.
constexpr size_t kLargeBytes = 64 * 1024;

using OpsetMap = std::map<std::string, int64_t>;

std::string Normalized(const std::string& domain) { return domain == "ai.onnx" ? "" : domain; }

// What stays the same while one model is prepared.
struct Env {
  const ExecutorOptions& options;
  std::map<std::string, const Function*> functions = {};  // by domain/name/overload
  BufferPool pool = {};                                   // of constants computed here
  int64_t random_nodes = 0;
  int64_t nodes = 0;
};

std::string FunctionKey(const std::string& domain, const std::string& name) {
  return Normalized(domain) + '/' + name;
}

// Names in one scope: the graph, a subgraph or a function's body.
struct Scope {
  std::unordered_map<std::string, ValueRef> refs = {};
  const OpsetMap* opsets = nullptr;
  const Attributes* bound = nullptr;  // of the function call; null: outside of functions
  bool is_main = false;
  bool folds = false;  // constants of constants are computed when preparing
  int depth = 0;
};

Tensor Dense(const SparseTensor& sparse, const std::string& name) {
  const int bits = ElementBits(sparse.values.dtype());
  if (bits < 8) {
    throw Error(ErrorCode::kUnsupported,
                std::string("sparse tensors of ") + DTypeName(sparse.values.dtype()), name);
  }
  const size_t width = static_cast<size_t>(bits / 8);
  auto bytes = std::make_shared<std::vector<std::byte>>(
      static_cast<size_t>(PackedBytes(sparse.values.dtype(), sparse.dims)));
  const std::span<const int64_t> indices = sparse.indices.data<int64_t>();
  const size_t rank = sparse.indices.rank() == 2 ? sparse.dims.size() : 1;
  const int64_t count = ElementCount(sparse.dims);
  const std::span<const std::byte> values = sparse.values.bytes();
  for (size_t i = 0; i < static_cast<size_t>(sparse.values.count()); ++i) {
    int64_t flat = rank == 1 ? indices[i] : 0;
    for (size_t axis = 0; rank > 1 && axis < rank; ++axis) {
      const int64_t index = indices[i * rank + axis];
      flat = index < 0 || index >= sparse.dims[axis] ? -1 : flat * sparse.dims[axis] + index;
      if (flat < 0) break;
    }
    if (flat < 0 || flat >= count) {
      throw Error(ErrorCode::kInvalidArgument, "an index of the sparse tensor is out of range",
                  name);
    }
    std::copy_n(values.data() + i * width, width,
                bytes->data() + static_cast<size_t>(flat) * width);
  }
  const std::span<const std::byte> view(*bytes);
  return Tensor::View(sparse.values.dtype(), sparse.dims, view, std::move(bytes));
}

bool IsLarge(const Tensor& tensor) { return tensor.bytes().size() >= kLargeBytes; }

// Of its attributes: those of the fused operators hold weights.
bool HoldsLarge(const Node& node) {
  return std::ranges::any_of(node.attributes, [](const auto& attribute) {
    const Tensor* tensor = std::get_if<Tensor>(&attribute.second.value);
    return tensor != nullptr && IsLarge(*tensor);
  });
}

// What is needed to prepare a node, but the constants it reads.
struct Preparation {
  Node node;
  const OpInfo* info = nullptr;
  OpContext context;
  size_t step = 0;
};

class Builder {
 public:
  Builder(Env& env, PreparedGraph& graph) : env_(env), graph_(graph) {}

  ValueRef AddConstant(Tensor tensor) {
    graph_.constants.push_back(std::move(tensor));
    return ~static_cast<ValueRef>(graph_.constants.size() - 1);
  }
  ValueRef AddSlot() { return graph_.slot_count++; }

  void AddInitializers(const Graph& graph, Scope& scope);
  void AddNodes(const std::vector<Node>& nodes, Scope& scope);
  ValueRef Find(const std::string& name, const Scope& scope, const std::string& where) const;
  // After the last node.
  void Finish();

 private:
  void FindLastUses();
  const Tensor* ConstantAt(ValueRef ref) const {
    return ref < 0 && ref != kNoValue ? &graph_.constants[static_cast<size_t>(~ref)] : nullptr;
  }
  void AddNode(const Node& node, Scope& scope);
  void AddCall(const Node& node, const Function& function, Scope& scope);
  Preparation Describe(const Node& node, const Scope& scope);
  bool CanWait(const Preparation& preparation, const PreparedStep& step) const;
  Op PrepareOp(const Preparation& preparation, PreparedStep& step);
  Op PrepareSubgraph(const GraphPtr& graph, const Scope& scope);
  bool Fold(const Node& node, const Scope& scope, const Op& op, PreparedStep& step);
  const Function* FunctionOf(const Node& node) const;

  Env& env_;
  PreparedGraph& graph_;
  std::vector<Preparation> waiting_;
};

ValueRef Builder::Find(const std::string& name, const Scope& scope,
                       const std::string& where) const {
  if (name.empty()) return kNoValue;
  const auto it = scope.refs.find(name);
  if (it == scope.refs.end()) {
    throw Error(ErrorCode::kInvalidArgument, "reads \"" + name + "\", which nothing assigns before",
                where);
  }
  return it->second;
}

void Builder::AddInitializers(const Graph& graph, Scope& scope) {
  for (const auto& [name, initializer] : graph.initializers) {
    scope.refs[name] = AddConstant(initializer.tensor);
  }
  for (const auto& [name, sparse] : graph.sparse_initializers) {
    scope.refs[name] = AddConstant(Dense(sparse, name));
  }
}

void Builder::AddNodes(const std::vector<Node>& nodes, Scope& scope) {
  if (scope.depth > kNestingMax) {
    throw Error(ErrorCode::kUnsupported, "subgraphs and functions are nested more than " +
                                             std::to_string(kNestingMax) + " deep");
  }
  for (const Node& node : nodes) {
    scope.bound == nullptr ? AddNode(node, scope) : AddNode(Bind(node, *scope.bound), scope);
  }
}

const Function* Builder::FunctionOf(const Node& node) const {
  const auto it = env_.functions.find(FunctionKey(node.domain, node.op_type));
  return it == env_.functions.end() ? nullptr : it->second;
}

void Builder::AddCall(const Node& node, const Function& function, Scope& scope) {
  const Attributes bound = BoundAttributes(function, node);
  OpsetMap opsets;
  for (const auto& [domain, version] : function.opsets) opsets[Normalized(domain)] = version;
  Scope body{.opsets = &opsets, .bound = &bound, .folds = scope.folds, .depth = scope.depth + 1};
  for (size_t i = 0; i < function.inputs.size(); ++i) {
    body.refs[function.inputs[i]] =
        i < node.inputs.size() ? Find(node.inputs[i], scope, NodeLabel(node)) : kNoValue;
  }
  AddNodes(function.nodes, body);
  for (size_t i = 0; i < node.outputs.size() && i < function.outputs.size(); ++i) {
    if (node.outputs[i].empty()) continue;
    scope.refs[node.outputs[i]] = Find(function.outputs[i], body, NodeLabel(node));
  }
  if (!scope.is_main) return;
  PreparedStep seen;  // for the observer, who is to see all names of the main graph
  for (const std::string& name : node.outputs) {
    const auto it = scope.refs.find(name);
    seen.output_names.push_back(name);
    seen.outputs.push_back(name.empty() || it == scope.refs.end() ? kNoValue : it->second);
  }
  graph_.steps.push_back(std::move(seen));
}

void Builder::AddNode(const Node& node, Scope& scope) {
  CountWrittenOut(env_.nodes);
  if (const Function* function = FunctionOf(node)) {
    AddCall(node, *function, scope);
    return;
  }
  if (const std::optional<Function> function = ComposeOp(node)) {
    AddCall(node, *function, scope);
    return;
  }
  PreparedStep step;
  const std::string label = NodeLabel(node);
  for (const std::string& name : node.inputs) step.inputs.push_back(Find(name, scope, label));
  for (const std::string& name : CapturedNamesOf(node)) {
    step.inputs.push_back(Find(name, scope, label));
  }
  step.stats.node = node.name.empty() ? label : node.name;
  step.stats.op_type = node.op_type;
  if (scope.is_main) step.output_names = node.outputs;
  Preparation preparation = Describe(node, scope);
  const bool waits = CanWait(preparation, step);
  Op op = waits ? Op() : PrepareOp(preparation, step);
  if (waits || !Fold(node, scope, op, step)) {
    step.op = std::move(op);
    for (const std::string& name : node.outputs) {
      step.outputs.push_back(name.empty() ? kNoValue : AddSlot());
    }
  }
  if (waits) {
    preparation.step = graph_.steps.size();
    waiting_.push_back(std::move(preparation));
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i].empty()) scope.refs[node.outputs[i]] = step.outputs[i];
  }
  graph_.steps.push_back(std::move(step));
}

Preparation Builder::Describe(const Node& node, const Scope& scope) {
  const std::string domain = Normalized(node.domain);
  const auto opset = scope.opsets->find(domain);
  const int64_t version = opset == scope.opsets->end() ? 0 : opset->second;
  const OpInfo* info = FindOp(domain, node.op_type);
  if (info == nullptr) {
    throw Error(ErrorCode::kUnsupported,
                "pared has no operator " + (domain.empty() ? "" : domain + "::") + node.op_type +
                    " (opset " + std::to_string(version) + ")",
                NodeLabel(node));
  }
  const ExecutorOptions& options = env_.options;
  OpContext context;
  context.opset = version;
  context.isa = options.isa;
  context.threads = options.threads;
  context.tune = options.tune;
  context.sparse = options.sparse;
  context.seed = options.seed + env_.random_nodes++;
  if (!SubgraphsOf(node).empty()) {
    context.prepare_graph = [&](const GraphPtr& graph) { return PrepareSubgraph(graph, scope); };
  }
  return {node, info, std::move(context)};
}

// Not one that could be folded, whose value the next nodes may want, nor one that measures how fast
// it is.
bool Builder::CanWait(const Preparation& preparation, const PreparedStep& step) const {
  if (preparation.context.tune || !SubgraphsOf(preparation.node).empty()) return false;
  bool reads_slot = false, has_large = HoldsLarge(preparation.node);
  for (const ValueRef ref : step.inputs) {
    const Tensor* constant = ConstantAt(ref);
    has_large = has_large || (constant != nullptr && IsLarge(*constant));
    reads_slot = reads_slot || (constant == nullptr && ref != kNoValue);
  }
  return reads_slot && has_large;
}

Op Builder::PrepareOp(const Preparation& preparation, PreparedStep& step) {
  const auto& [node, info, described, index] = preparation;
  OpContext context = described;
  context.stats = &step.stats;
  const bool widens = info->half_floats == HalfFloats::kWiden;
  std::vector<std::shared_ptr<const Tensor>> widened(step.inputs.size());
  Scratch scratch(env_.pool, env_.options.threads);
  for (size_t i = 0; i < step.inputs.size(); ++i) {
    const Tensor* constant = ConstantAt(step.inputs[i]);
    if (constant != nullptr && widens && IsHalfFloat(constant->dtype())) {
      widened[i] = std::make_shared<const Tensor>(WidenHalf(*constant, scratch));
      constant = widened[i].get();
    }
    context.constants.push_back(constant);
    context.given.push_back(step.inputs[i] != kNoValue);
  }
  Op op = info->prepare(node, context);
  if (!widens) return op;
  size_t narrowed = node.outputs.size();
  while (narrowed > 0 && MakesSingle(node, narrowed - 1)) --narrowed;
  return AroundHalfFloats(std::move(op), std::move(widened), narrowed);
}

// Subgraphs are not folded beyond their constants: a branch that is never taken may hold a
// computation that would throw.
bool Builder::Fold(const Node& node, const Scope& scope, const Op& op, PreparedStep& step) {
  static constexpr std::string_view kWithSubgraphs[] = {"If", "Loop", "Scan", "SequenceMap"};
  if (IsRandomOp(node.op_type) ||
      std::ranges::find(kWithSubgraphs, node.op_type) != std::end(kWithSubgraphs)) {
    return false;
  }
  const bool is_constant = node.op_type == "Constant" && node.inputs.empty();
  if (!is_constant && !(scope.folds && !step.inputs.empty())) return false;
  int64_t input_bytes = 0;
  std::vector<const Tensor*> inputs;
  for (const ValueRef ref : step.inputs) {
    const Tensor* constant = ConstantAt(ref);
    if (constant == nullptr && ref != kNoValue) return false;
    inputs.push_back(constant);
    if (constant != nullptr) input_bytes += static_cast<int64_t>(constant->bytes().size());
  }
  std::vector<Tensor> outputs(node.outputs.size());
  Scratch scratch(env_.pool, env_.options.threads);
  op(inputs, outputs, scratch);
  int64_t bytes = 0;
  for (const Tensor& output : outputs) bytes += static_cast<int64_t>(output.bytes().size());
  if (!is_constant && bytes > std::max(kFoldedBytesFree, kFoldedGrowth * input_bytes)) return false;
  for (Tensor& output : outputs) step.outputs.push_back(AddConstant(std::move(output)));
  step.inputs.clear();
  return true;
}

Op Builder::PrepareSubgraph(const GraphPtr& graph, const Scope& scope) {
  auto prepared = std::make_shared<PreparedGraph>();
  Builder builder(env_, *prepared);
  Scope inner{.opsets = scope.opsets, .bound = scope.bound, .depth = scope.depth + 1};
  for (const ValueInfo& input : graph->inputs) {
    prepared->inputs.push_back(inner.refs[input.name] = builder.AddSlot());
  }
  for (const std::string& name : CapturedNames(*graph)) {
    const Tensor* constant = ConstantAt(Find(name, scope, graph->name));
    if (constant != nullptr) {
      inner.refs[name] = builder.AddConstant(*constant);
      prepared->inputs.push_back(kNoValue);
    } else {
      prepared->inputs.push_back(inner.refs[name] = builder.AddSlot());
    }
  }
  builder.AddInitializers(*graph, inner);
  builder.AddNodes(graph->nodes, inner);
  for (const ValueInfo& output : graph->outputs) {
    prepared->outputs.push_back(builder.Find(output.name, inner, graph->name));
  }
  builder.Finish();
  return [prepared](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                    Scratch& scratch) {
    std::vector<Tensor> made = prepared->Run(inputs, scratch.pool(), scratch.threads(), {});
    for (size_t i = 0; i < outputs.size() && i < made.size(); ++i) outputs[i] = std::move(made[i]);
  };
}

void Builder::Finish() {
  tbb::parallel_for(size_t{0}, waiting_.size(), [&](size_t i) {
    PreparedStep& step = graph_.steps[waiting_[i].step];
    step.op = PrepareOp(waiting_[i], step);
  });
  FindLastUses();
}

void Builder::FindLastUses() {
  constexpr size_t kNever = SIZE_MAX;
  std::vector<size_t> last(static_cast<size_t>(graph_.slot_count), kNever);
  for (size_t s = 0; s < graph_.steps.size(); ++s) {
    for (const ValueRef ref : graph_.steps[s].outputs) {
      if (ref >= 0) last[static_cast<size_t>(ref)] = s;
    }
    for (const ValueRef ref : graph_.steps[s].inputs) {
      if (ref >= 0) last[static_cast<size_t>(ref)] = s;
    }
  }
  for (const ValueRef ref : graph_.outputs) {
    if (ref >= 0) last[static_cast<size_t>(ref)] = kNever;
  }
  for (size_t slot = 0; slot < last.size(); ++slot) {
    if (last[slot] == kNever) continue;
    graph_.steps[last[slot]].last_uses.push_back(static_cast<ValueRef>(slot));
  }
}

}  // namespace

PreparedGraph PrepareModel(const Model& model, const ExecutorOptions& options) {
  CheckWrittenOut(model);
  Env env{.options = options};
  for (const Function& function : model.functions) {
    env.functions[FunctionKey(function.domain, function.name)] = &function;
  }
  OpsetMap opsets = {{"pared", 1}};
  for (const auto& [domain, version] : model.opsets) opsets[Normalized(domain)] = version;
  PreparedGraph prepared;
  Builder builder(env, prepared);
  Scope scope{.opsets = &opsets, .is_main = true, .folds = true};
  for (const ValueInfo& input : CallerInputs(model.graph)) {
    prepared.inputs.push_back(scope.refs[input.name] = builder.AddSlot());
  }
  builder.AddInitializers(model.graph, scope);
  builder.AddNodes(model.graph.nodes, scope);
  for (const ValueInfo& output : model.graph.outputs) {
    prepared.outputs.push_back(builder.Find(output.name, scope, model.graph.name));
  }
  builder.Finish();
  return prepared;
}

}  // namespace pared
