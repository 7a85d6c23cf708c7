#include "passes/known_values.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "passes/own_copy.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

// The smallest values of one sample that together have `bytes_max` at most.
Names Smallest(const std::map<std::string, int64_t>& bytes, int64_t bytes_max) {
  std::vector<std::pair<int64_t, std::string>> order;
  for (const auto& [value, size] : bytes) order.emplace_back(size, value);
  std::ranges::sort(order);
  Names chosen;
  for (const auto& [size, value] : order) {
    bytes_max -= size;
    if (bytes_max < 0) break;
    chosen.insert(value);
  }
  return chosen;
}

bool HasShape(const Tensor& tensor, const std::vector<Dim>& dims) {
  const Shape& shape = tensor.shape();
  if (shape.size() != dims.size()) return false;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i].value >= 0 && dims[i].value != shape[i]) return false;
  }
  return true;
}

}  // namespace

KnownValues::KnownValues(const Model& model, const PassContext& context,
                         const std::vector<int64_t>& samples, int64_t bytes_max)
    : graph_(model.graph), samples_(samples.size()) {
  if (samples.empty()) return;
  Names single;  // made by nodes of one output
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    const Node& node = graph_.nodes[i];
    if (node.outputs.empty()) continue;
    makers_.emplace(node.outputs[0], i);
    if (node.outputs.size() == 1) single.insert(node.outputs[0]);
  }
  const Executor executor(model, {.seed = context.seed});
  const auto run = [&](int64_t sample, const Observer& observer) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while measuring");
    executor.Run(context.calibration->Sample(sample, executor.inputs()), &observer);
  };
  std::map<std::string, int64_t> bytes;
  run(samples[0], [&](const std::string& value, const Tensor& tensor) {
    const bool can_be = tensor.layout() == Layout::kRowMajor && ElementBits(tensor.dtype()) > 0;
    if (can_be && single.contains(value)) bytes[value] = std::ssize(tensor.bytes());
  });
  const Names kept = Smallest(bytes, bytes_max / std::ssize(samples));
  tbb::parallel_for(size_t{0}, samples.size(), [&](size_t at) {
    run(samples[at], [&](const std::string& value, const Tensor& tensor) {
      if (kept.contains(value)) samples_[at].emplace(value, OwnCopy(tensor));
    });
  });
  const auto types = InferShapes(model);
  for (const std::string& value : kept) {
    ValueInfo& type = types_[value];
    type.name = value;
    type.dtype = samples_[0].at(value).dtype();
    if (const auto found = types.find(value); found != types.end()) {
      type.shape = found->second.shape;
    }
    const bool is_true = std::ranges::all_of(samples_, [&](const Values& values) {
      return !type.shape || HasShape(values.at(value), *type.shape);
    });
    if (!is_true) type.shape = std::nullopt;
  }
}

bool KnownValues::IsKept(const std::string& value) const { return types_.contains(value); }

const Tensor& KnownValues::at(size_t sample, const std::string& value) const {
  return samples_[sample].at(value);
}

// Whether the model has the node, too. Passes that quantize leave attributes as they are, but for
// the value of a Constant and subgraphs, which are copied where they are edited.
bool KnownValues::IsSame(const Node& node) const {
  if (node.outputs.empty() || node.op_type == "Constant") return false;
  const auto maker = makers_.find(node.outputs[0]);
  if (maker == makers_.end()) return false;
  const Node& own = graph_.nodes[maker->second];
  return own.op_type == node.op_type && own.domain == node.domain && own.inputs == node.inputs &&
         own.outputs == node.outputs && SubgraphsOf(own) == SubgraphsOf(node);
}

// Values of the candidate that may differ from the model's.
Names KnownValues::Changed(const Graph& candidate) const {
  Names changed;
  for (const auto& [name, initializer] : candidate.initializers) {
    const Initializer* own = graph_.initializers.find(name);
    const auto bytes = [](const Initializer& of) { return of.tensor.bytes().data(); };
    if (own == nullptr || bytes(*own) != bytes(initializer)) changed.insert(name);
  }
  const auto is_changed = [&](const std::string& value) { return changed.contains(value); };
  for (const Node& node : candidate.nodes) {
    if (IsSame(node) && std::ranges::none_of(node.inputs, is_changed) &&
        std::ranges::none_of(CapturedNamesOf(node), is_changed)) {
      continue;
    }
    for (const std::string& output : node.outputs) {
      if (!output.empty()) changed.insert(output);
    }
  }
  return changed;
}

std::vector<std::string> KnownValues::Feed(Model& candidate) const {
  Graph& graph = candidate.graph;
  const Names changed = Changed(graph);
  Names made;  // values that are known, and that nodes of the candidate make
  for (const Node& node : graph.nodes) {
    for (const std::string& output : node.outputs) {
      if (IsKept(output) && !changed.contains(output)) made.insert(output);
    }
  }
  std::erase_if(graph.outputs, [&](const ValueInfo& output) { return made.contains(output.name); });
  std::erase_if(graph.nodes, [&](const Node& node) {
    return node.outputs.size() == 1 && made.contains(node.outputs[0]);
  });
  EraseDead(graph);
  std::vector<std::string> fed;
  const auto feed = [&](const std::string& value) {
    if (made.erase(value) == 0) return;
    fed.push_back(value);
    graph.inputs.push_back(types_.at(value));
  };
  for (const Node& node : graph.nodes) {
    for (const std::string& input : node.inputs) feed(input);
    for (const std::string& captured : CapturedNamesOf(node)) feed(captured);
  }
  return fed;
}

}  // namespace pared
