#include "passes/layer_stream.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <set>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/fuse_float.h"
#include "model/infer_shapes.h"
#include "passes/calibrate.h"
#include "passes/weights.h"

namespace pared {
namespace {

// Operators that make constants of constants: chains between a stored weight and its reader.
bool IsChainOp(const Node& node) {
  static const std::unordered_set<std::string> kOps = {
      "Constant", "Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  return kOps.contains(node.op_type);
}

int64_t BytesOf(const std::map<std::string, Tensor>& values) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : values) {
    if (tensor.dtype() != DType::kString) bytes += PackedBytes(tensor.dtype(), tensor.shape());
  }
  return bytes;
}

// Of the products with stored weights, for one sample.
int64_t MacsOf(const Model& model) {
  const auto types = InferShapes(model);
  int64_t macs = 1;
  for (const WeightSite& site : FindWeights(model).sites) macs += MacsOf(site, types);
  return macs;
}

}  // namespace

LayerStream::LayerStream(const Model& original, PassContext& context, const Bounds& bounds)
    : original_(original), context_(context) {
  IndexNodes();
  const std::vector<ValueInfo> inputs = CallerInputs(original.graph);
  const int64_t all = CalibrationCount(context);
  const int64_t affordable = std::max(kSamplesMin, bounds.macs / MacsOf(original));
  const int64_t samples = std::min({all, bounds.samples, affordable});
  for (int64_t sample = 0; sample < samples; ++sample) {
    const std::vector<Tensor> given = context.calibration->Sample(sample * all / samples, inputs);
    Values& values = live_.emplace_back().original;
    for (size_t i = 0; i < inputs.size(); ++i) values.emplace(inputs[i].name, given[i]);
  }
}

const Tensor* LayerStream::Original(int64_t sample, const std::string& value) const {
  const Values& values = live_[static_cast<size_t>(sample)].original;
  const auto found = values.find(value);
  return found == values.end() ? nullptr : &found->second;
}

const Tensor* LayerStream::Edited(int64_t sample, const std::string& value) const {
  if (!is_split_) return Original(sample, value);
  const Values& values = live_[static_cast<size_t>(sample)].edited;
  const auto found = values.find(value);
  return found == values.end() ? nullptr : &found->second;
}

void LayerStream::AddInputs(const Node& node, std::vector<std::string>& names) const {
  for (const std::string& input : node.inputs) {
    if (!input.empty()) names.push_back(input);
  }
  const auto add_captured = [&](const GraphPtr& graph) {
    for (const std::string& name : CapturedNames(*graph)) names.push_back(name);
  };
  for (const auto& [name, attribute] : node.attributes) {
    if (const GraphPtr* one = std::get_if<GraphPtr>(&attribute.value)) add_captured(*one);
    if (const auto* many = std::get_if<std::vector<GraphPtr>>(&attribute.value)) {
      for (const GraphPtr& graph : *many) add_captured(graph);
    }
  }
}

void LayerStream::IndexNodes() {
  const std::vector<Node>& nodes = original_.graph.nodes;
  for (size_t i = 0; i < nodes.size(); ++i) {
    std::vector<std::string> inputs;
    AddInputs(nodes[i], inputs);
    bool is_constant = IsChainOp(nodes[i]);
    for (const std::string& input : inputs) {
      last_use_[input] = i;
      is_constant = is_constant && (original_.graph.initializers.contains(input) ||
                                    constant_producer_.contains(input));
    }
    is_constant_.push_back(is_constant);
    if (!is_constant) continue;
    for (const std::string& output : nodes[i].outputs) constant_producer_[output] = i;
  }
}

// The constant `value` and all it is made of: an initializer at once, nodes by index.
void LayerStream::TakeConstants(const Model& model, const std::string& value,
                                std::vector<size_t>& taken, Model& segment) const {
  if (const Initializer* initializer = model.graph.initializers.find(value)) {
    segment.graph.initializers.set(value, *initializer);
    return;
  }
  const auto producer = constant_producer_.find(value);
  if (producer == constant_producer_.end()) return;
  taken.push_back(producer->second);
  for (const std::string& input : model.graph.nodes[producer->second].inputs) {
    if (!input.empty()) TakeConstants(model, input, taken, segment);
  }
}

// Nodes [at_, end) of `model` as a model of its own.
Model LayerStream::Segment(const Model& model, size_t end, const Values& values) const {
  Model segment;
  segment.ir_version = model.ir_version;
  segment.opsets = model.opsets;
  segment.functions = model.functions;
  segment.graph.name = "segment";
  segment.graph.sparse_initializers = model.graph.sparse_initializers;
  std::vector<size_t> taken;
  std::set<std::string> read;
  for (size_t i = at_; i < end; ++i) {
    if (is_constant_[i]) continue;
    const Node& node = model.graph.nodes[i];
    std::vector<std::string> inputs;
    AddInputs(node, inputs);
    for (const std::string& input : inputs) {
      TakeConstants(model, input, taken, segment);
      read.insert(input);
    }
    for (const std::string& output : node.outputs) {
      const auto last = last_use_.find(output);
      if (last == last_use_.end() || last->second < end) continue;
      ValueInfo info;
      info.name = output;
      segment.graph.outputs.push_back(info);
    }
  }
  for (const auto& [name, tensor] : values) {
    if (!read.contains(name)) continue;
    ValueInfo info;
    info.name = name;
    info.dtype = tensor.dtype();
    segment.graph.inputs.push_back(info);
  }
  const std::set<size_t> constants(taken.begin(), taken.end());
  for (const size_t i : constants) segment.graph.nodes.push_back(model.graph.nodes[i]);
  for (size_t i = at_; i < end; ++i) {
    if (!is_constant_[i]) segment.graph.nodes.push_back(model.graph.nodes[i]);
  }
  return segment;
}

void LayerStream::Forget(Values& values, size_t end) const {
  std::erase_if(values, [&](const auto& entry) {
    const auto last = last_use_.find(entry.first);
    return last == last_use_.end() || last->second < end;
  });
}

void LayerStream::RunSegment(const Model& segment, size_t end, bool is_edited) {
  std::optional<Executor> executor;
  if (!segment.graph.outputs.empty()) {
    executor.emplace(FuseFloat(segment), ExecutorOptions{.fuse = false, .seed = context_.seed});
  }
  tbb::parallel_for(size_t{0}, live_.size(), [&](size_t at) {
    if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while reconstructing");
    Sample& sample = live_[at];
    Values& values = is_edited ? sample.edited : sample.original;
    if (executor) {
      std::vector<Tensor> inputs;
      for (const ValueInfo& input : executor->inputs()) inputs.push_back(values.at(input.name));
      const std::vector<Tensor> outputs = executor->Run(inputs);
      for (size_t i = 0; i < outputs.size(); ++i) {
        values.insert_or_assign(executor->outputs()[i].name, outputs[i]);
      }
    }
    Forget(values, end);
  });
}

void LayerStream::DropSamples() {
  int64_t bytes = 0;
  size_t kept = 0;
  for (const Sample& sample : live_) {
    bytes += 2 * BytesOf(sample.original);
    if (kept > 0 && bytes > kLiveBytesMax) break;
    ++kept;
  }
  live_.resize(kept);
}

void LayerStream::AdvanceTo(size_t index, const Model& edited) {
  PARED_CHECK(index >= at_);
  // The layer at the first cut, which may be the first node, is the first that may differ.
  const bool may_differ = std::exchange(is_cut_, true);
  if (live_.empty() || index == at_) return;
  if (may_differ && !is_split_) {
    for (Sample& sample : live_) sample.edited = sample.original;
    is_split_ = true;
  }
  if (is_split_) RunSegment(Segment(edited, index, live_[0].edited), index, true);
  RunSegment(Segment(original_, index, live_[0].original), index, false);
  DropSamples();
  at_ = index;
}

}  // namespace pared
