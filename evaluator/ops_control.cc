// If, Loop, Scan and SequenceMap: nodes that run graphs; beside them the list of sequences and
// optionals.
//
// The op of a subgraph takes the graph's own inputs, then the names it captures; the node's op gets
// the captured names of all its graphs after its own inputs, graph by graph.

#include <algorithm>

#include "evaluator/op_checks.h"
#include "evaluator/prepared_graph.h"
#include "evaluator/sequence.h"
#include "evaluator/strided.h"

namespace pared {
namespace {

// A subgraph and where its captured values stand among the inputs of the node's op.
struct Body {
  Op op;
  size_t first_captured = 0, captured = 0;
  size_t outputs = 0;

  // `own`: the values of the graph's inputs. `all`: the inputs of the node's op.
  std::vector<Tensor> Run(std::vector<const Tensor*> own, std::span<const Tensor* const> all,
                          Scratch& scratch) const {
    const auto names = all.subspan(first_captured, captured);
    own.insert(own.end(), names.begin(), names.end());
    std::vector<Tensor> results(outputs);
    op(own, results, scratch);
    return results;
  }
};

// `context` null: only to be counted, not to be prepared.
Body FindBody(const Node& node, const std::string& attribute, const OpContext* context) {
  const GraphPtr graph = node.GraphOf(attribute);
  if (graph == nullptr) RefuseNode("lacks its graph " + attribute, NodeLabel(node));
  Body body;
  body.first_captured = node.inputs.size();
  for (const auto& [name, value] : node.attributes) {
    const auto* other = std::get_if<GraphPtr>(&value.value);
    if (other == nullptr) continue;
    const size_t captured = CapturedNames(**other).size();
    if (name == attribute) {
      body.captured = captured;
      break;
    }
    body.first_captured += captured;
  }
  body.outputs = graph->outputs.size();
  if (context != nullptr) body.op = context->prepare_graph(graph);
  return body;
}

bool BoolOf(const Tensor& tensor, const std::string& label) {
  if (tensor.dtype() != DType::kBool || tensor.count() != 1) {
    RefuseNode("its condition must be one bool", label);
  }
  return tensor.data<bool>()[0];
}

Op PrepareIf(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 1);
  const std::string label = NodeLabel(node);
  // Where the condition is known, the other branch may hold what pared cannot run.
  const Tensor* known = context.constants[0];
  const bool runs_then = known == nullptr || BoolOf(*known, label);
  const bool runs_else = known == nullptr || !BoolOf(*known, label);
  return [label, then_body = FindBody(node, "then_branch", runs_then ? &context : nullptr),
          else_body = FindBody(node, "else_branch", runs_else ? &context : nullptr)](
             std::span<const Tensor* const> inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Body& body = BoolOf(*inputs[0], label) ? then_body : else_body;
    std::vector<Tensor> results = body.Run({}, inputs, scratch);
    if (results.size() != outputs.size()) RefuseNode("its branch has other outputs", label);
    std::ranges::move(results, outputs.begin());
  };
}

// The slices of a scan output, joined along a new axis.
Tensor Stack(const std::vector<Tensor>& slices, int64_t axis_given, Scratch& scratch,
             const std::string& label) {
  const Tensor& first = slices.front();
  const int64_t axis = NormalizeAxis(axis_given, first.rank() + 1, label);
  Shape shape = first.shape();
  shape.insert(shape.begin() + axis, static_cast<int64_t>(slices.size()));
  const int64_t outer = Extent(first.shape(), 0, axis);
  const int64_t inner = Extent(first.shape(), axis, first.rank());
  Tensor stacked;
  DispatchWidth(first.dtype(), label, [&]<class T>() {
    T* y = AllocateLike<T>(stacked, first.dtype(), shape, scratch);
    for (size_t i = 0; i < slices.size(); ++i) {
      if (slices[i].shape() != first.shape() || slices[i].dtype() != first.dtype()) {
        RefuseNode("the slices of a scan output differ in shape", label);
      }
      const T* x = Elements<T>(slices[i]);
      for (int64_t o = 0; o < outer; ++o) {
        const int64_t row = o * static_cast<int64_t>(slices.size()) + static_cast<int64_t>(i);
        std::copy_n(x + o * inner, inner, y + row * inner);
      }
    }
  });
  return stacked;
}

// A scan output without a single slice: as the body's graph declares it.
Tensor EmptyStack(const ValueInfo& declared, Scratch& scratch) {
  Shape shape = {0};
  if (declared.shape) {
    for (const Dim& dim : *declared.shape) shape.push_back(std::max<int64_t>(0, dim.value));
  }
  const DType dtype = declared.dtype == DType::kUndefined ? DType::kFloat32 : declared.dtype;
  Tensor empty;
  scratch.AllocateBytes(empty, dtype, shape, Layout::kRowMajor);
  return empty;
}

struct LoopParts {
  Body body;
  GraphPtr graph;
  size_t carried = 0;
  std::string label;
};

void RunLoop(const LoopParts& loop, std::span<const Tensor* const> inputs,
             std::span<Tensor> outputs, Scratch& scratch) {
  const int64_t trips = inputs[0] == nullptr ? INT64_MAX : IntegersOf(*inputs[0], loop.label).at(0);
  Tensor condition = inputs[1] == nullptr ? Tensor::Scalar<bool>(true) : *inputs[1];
  std::vector<Tensor> carried;
  for (size_t i = 0; i < loop.carried; ++i) {
    carried.push_back(inputs[2 + i] == nullptr ? Tensor() : *inputs[2 + i]);
  }
  std::vector<std::vector<Tensor>> scans(outputs.size() - loop.carried);
  for (int64_t trip = 0; trip < trips && BoolOf(condition, loop.label); ++trip) {
    const Tensor number = Tensor::Scalar<int64_t>(trip);
    std::vector<const Tensor*> own = {&number, &condition};
    for (const Tensor& value : carried) own.push_back(&value);
    std::vector<Tensor> results = loop.body.Run(std::move(own), inputs, scratch);
    condition = std::move(results[0]);
    for (size_t i = 0; i < carried.size(); ++i) carried[i] = std::move(results[1 + i]);
    for (size_t i = 0; i < scans.size(); ++i) {
      scans[i].push_back(std::move(results[1 + carried.size() + i]));
    }
  }
  for (size_t i = 0; i < carried.size(); ++i) outputs[i] = std::move(carried[i]);
  for (size_t i = 0; i < scans.size(); ++i) {
    outputs[loop.carried + i] = scans[i].empty()
                                    ? EmptyStack(loop.graph->outputs[1 + loop.carried + i], scratch)
                                    : Stack(scans[i], 0, scratch, loop.label);
  }
}

Op PrepareLoop(const Node& node, const OpContext& context) {
  LoopParts loop{FindBody(node, "body", &context), node.GraphOf("body"), 0, NodeLabel(node)};
  if (node.inputs.size() < 2) RefuseNode("takes at least 2 inputs", loop.label);
  loop.carried = node.inputs.size() - 2;
  const bool fits = loop.graph->inputs.size() == loop.carried + 2 &&
                    loop.graph->outputs.size() == node.outputs.size() + 1 &&
                    node.outputs.size() >= loop.carried;
  if (!fits) RefuseNode("its inputs, outputs and body do not fit each other", loop.label);
  return [loop = std::move(loop)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                  Scratch& scratch) { RunLoop(loop, inputs, outputs, scratch); };
}

struct ScanParts {
  Body body;
  GraphPtr graph;
  size_t states = 0, scans = 0;
  std::vector<int64_t> input_axes, output_axes, input_directions, output_directions;
  std::string label;
};

// Slice `place` along `axis`, without that axis.
Tensor SliceAt(const Tensor& tensor, int64_t axis, int64_t place, Scratch& scratch,
               const std::string& label) {
  const Shape strides = StridesOf(tensor.shape());
  StridedView view{.dims = tensor.shape(), .strides = strides, .offset = place * strides[Sz(axis)]};
  view.dims.erase(view.dims.begin() + axis);
  view.strides.erase(view.strides.begin() + axis);
  Tensor slice;
  DispatchWidth(tensor.dtype(), label, [&]<class T>() {
    T* y = AllocateLike<T>(slice, tensor.dtype(), view.dims, scratch);
    CopyStrided(Elements<T>(tensor), view, y, scratch);
  });
  return slice;
}

void RunScan(const ScanParts& scan, std::span<const Tensor* const> inputs,
             std::span<Tensor> outputs, Scratch& scratch) {
  std::vector<Tensor> states;
  for (size_t i = 0; i < scan.states; ++i) states.push_back(*inputs[i]);
  std::vector<int64_t> axes;
  int64_t steps = -1;
  for (size_t i = 0; i < scan.scans; ++i) {
    const Tensor& input = *inputs[scan.states + i];
    axes.push_back(NormalizeAxis(scan.input_axes[i], input.rank(), scan.label));
    const int64_t length = input.shape()[Sz(axes.back())];
    if (steps >= 0 && length != steps) RefuseNode("its scan inputs differ in length", scan.label);
    steps = length;
  }
  std::vector<std::vector<Tensor>> slices(outputs.size() - scan.states);
  for (int64_t step = 0; step < steps; ++step) {
    std::vector<Tensor> parts;
    for (size_t i = 0; i < scan.scans; ++i) {
      const int64_t place = scan.input_directions[i] == 0 ? step : steps - 1 - step;
      parts.push_back(SliceAt(*inputs[scan.states + i], axes[i], place, scratch, scan.label));
    }
    std::vector<const Tensor*> own;
    for (const Tensor& state : states) own.push_back(&state);
    for (const Tensor& part : parts) own.push_back(&part);
    std::vector<Tensor> results = scan.body.Run(std::move(own), inputs, scratch);
    for (size_t i = 0; i < states.size(); ++i) states[i] = std::move(results[i]);
    for (size_t i = 0; i < slices.size(); ++i) {
      slices[i].push_back(std::move(results[states.size() + i]));
    }
  }
  for (size_t i = 0; i < states.size(); ++i) outputs[i] = std::move(states[i]);
  for (size_t i = 0; i < slices.size(); ++i) {
    if (scan.output_directions[i] != 0) std::ranges::reverse(slices[i]);
    outputs[scan.states + i] = slices[i].empty()
                                   ? EmptyStack(scan.graph->outputs[scan.states + i], scratch)
                                   : Stack(slices[i], scan.output_axes[i], scratch, scan.label);
  }
}

// Scan of opset 8: every value has an axis of the batch in front, behind the lengths of the
// sequences as first input.
void RunBatchedScan(const ScanParts& scan, std::span<const Tensor* const> inputs,
                    std::span<Tensor> outputs, Scratch& scratch) {
  if (inputs[0] != nullptr) {
    throw Error(ErrorCode::kUnsupported, "sequence_lens is not supported", scan.label);
  }
  const auto own = inputs.subspan(1, scan.states + scan.scans);
  const int64_t batches = own[0]->rank() == 0 ? 0 : own[0]->shape()[0];
  for (const Tensor* input : own) {
    const bool fits = batches > 0 && input->rank() > 0 && input->shape()[0] == batches;
    if (!fits) RefuseNode("its inputs must have a batch in common", scan.label);
  }
  std::vector<std::vector<Tensor>> made(outputs.size());
  for (int64_t batch = 0; batch < batches; ++batch) {
    std::vector<Tensor> slices, results(outputs.size());
    for (const Tensor* input : own) {
      slices.push_back(SliceAt(*input, 0, batch, scratch, scan.label));
    }
    // What the body captures keeps its place.
    std::vector<const Tensor*> all(inputs.begin(), inputs.end());
    for (size_t i = 0; i < slices.size(); ++i) all[i] = &slices[i];
    RunScan(scan, all, results, scratch);
    for (size_t i = 0; i < made.size(); ++i) made[i].push_back(std::move(results[i]));
  }
  for (size_t i = 0; i < made.size(); ++i) outputs[i] = Stack(made[i], 0, scratch, scan.label);
}

Op PrepareScan(const Node& node, const OpContext& context) {
  ScanParts scan;
  scan.label = NodeLabel(node);
  const bool is_batched = context.opset < 9;
  const size_t own = node.inputs.size() - std::min<size_t>(node.inputs.size(), is_batched ? 1 : 0);
  const int64_t scans = node.Int("num_scan_inputs", 0);
  scan.body = FindBody(node, "body", &context);
  scan.graph = node.GraphOf("body");
  const bool counts_fit = scans > 0 && Sz(scans) <= own && scan.graph->inputs.size() == own &&
                          scan.graph->outputs.size() == node.outputs.size() &&
                          node.outputs.size() >= own - Sz(scans);
  if (!counts_fit) RefuseNode("its inputs, outputs and body do not fit each other", scan.label);
  scan.scans = Sz(scans);
  scan.states = own - scan.scans;
  const size_t out_scans = node.outputs.size() - scan.states;
  const auto list = [&](const char* name, size_t count) {
    std::vector<int64_t> values = node.Ints(name, std::vector<int64_t>(count, 0));
    if (values.size() != count) RefuseNode(std::string(name) + " has a wrong length", scan.label);
    return values;
  };
  scan.input_axes = list("scan_input_axes", scan.scans);
  scan.input_directions = list(is_batched ? "directions" : "scan_input_directions", scan.scans);
  scan.output_axes = list("scan_output_axes", out_scans);
  scan.output_directions = list("scan_output_directions", out_scans);
  return [scan = std::move(scan), is_batched](std::span<const Tensor* const> inputs,
                                              std::span<Tensor> outputs, Scratch& scratch) {
    is_batched ? RunBatchedScan(scan, inputs, outputs, scratch)
               : RunScan(scan, inputs, outputs, scratch);
  };
}

// The body runs once for each item; a tensor beside the sequences is the same for all.
Op PrepareSequenceMap(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, SIZE_MAX);
  return [body = FindBody(node, "body", &context), own_count = node.inputs.size(),
          label = NodeLabel(node)](std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                                   Scratch& scratch) {
    if (body.outputs != outputs.size()) RefuseNode("its body has other outputs", label);
    const size_t count = CheckedItems(inputs[0], label).size();
    std::vector<std::vector<Tensor>> made(outputs.size());
    for (size_t i = 0; i < count; ++i) {
      std::vector<const Tensor*> own;
      for (const Tensor* input : inputs.first(own_count)) {
        const bool is_sequence = input != nullptr && input->dtype() == kSequence;
        if (is_sequence && ItemsOf(*input).size() != count) {
          RefuseNode("its sequences differ in length", label);
        }
        own.push_back(is_sequence ? &ItemsOf(*input)[i] : input);
      }
      std::vector<Tensor> results = body.Run(std::move(own), inputs, scratch);
      for (size_t j = 0; j < made.size(); ++j) made[j].push_back(std::move(results[j]));
    }
    for (size_t j = 0; j < made.size(); ++j) outputs[j] = MakeSequence(std::move(made[j]));
  };
}

constexpr OpInfo kOps[] = {
    {"If", "", PrepareIf, HalfFloats::kNative},
    {"Loop", "", PrepareLoop, HalfFloats::kNative},
    {"Scan", "", PrepareScan, HalfFloats::kNative},
    {"SequenceMap", "", PrepareSequenceMap, HalfFloats::kNative},
    {"SequenceEmpty", "", PrepareSequenceEmpty, HalfFloats::kNative},
    {"SequenceConstruct", "", PrepareSequenceConstruct, HalfFloats::kNative},
    {"SequenceAt", "", PrepareSequenceAt, HalfFloats::kNative},
    {"SequenceInsert", "", PrepareSequenceInsert, HalfFloats::kNative},
    {"SequenceErase", "", PrepareSequenceErase, HalfFloats::kNative},
    {"SequenceLength", "", PrepareSequenceLength, HalfFloats::kNative},
    {"SplitToSequence", "", PrepareSplitToSequence, HalfFloats::kNative},
    {"ConcatFromSequence", "", PrepareConcatFromSequence, HalfFloats::kNative},
    {"Optional", "", PrepareOptional, HalfFloats::kNative},
    {"OptionalHasElement", "", PrepareOptionalHasElement, HalfFloats::kNative},
    {"OptionalGetElement", "", PrepareOptionalGetElement, HalfFloats::kNative},
};

}  // namespace

std::span<const OpInfo> ControlOps() { return kOps; }

}  // namespace pared
