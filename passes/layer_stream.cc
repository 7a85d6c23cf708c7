#include "passes/layer_stream.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <numeric>
#include <set>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/fuse_float.h"
#include "model/infer_shapes.h"
#include "passes/calibrate.h"
#include "passes/own_copy.h"
#include "passes/weights.h"

namespace pared {
namespace {

// Operators that make constants of constants: chains between a stored weight and its reader.
bool IsChainOp(const Node& node) {
  static const std::unordered_set<std::string> kOps = {
      "Constant", "Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"};
  return kOps.contains(node.op_type);
}

// Texts and sequences, which no layer reads, count for nothing.
int64_t BytesOf(const Tensor& tensor) {
  return ElementBits(tensor.dtype()) == 0 ? 0 : PackedBytes(tensor.dtype(), tensor.shape());
}

int64_t BytesOf(const std::map<std::string, Tensor>& values) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : values) bytes += BytesOf(tensor);
  return bytes;
}

}  // namespace

LayerStream::LayerStream(const Model& original, PassContext& context, const Bounds& bounds)
    : original_(original), context_(context), live_bytes_max_(bounds.live_bytes) {
  IndexNodes();
  const int64_t all = CalibrationCount(context);
  const int64_t affordable = std::max(kSamplesMin, bounds.macs / (1 + MacsOf(original)));
  const int64_t wanted = std::min({all, bounds.samples, affordable});
  for (int64_t i = 0; i < wanted; ++i) samples_.push_back(i * all / wanted);
  if (samples_.empty()) return;
  capacities_ = FindCapacities();
  const int64_t begun = std::min(wanted, capacities_.front());
  SpillFile& file = NewFile();
  for (int64_t i = 0; i < begun; ++i) live_.push_back(Load(i * wanted / begun, i, file));
}

// Of the values that are made next.
SpillFile& LayerStream::NewFile() {
  return *files_.emplace_back(std::make_unique<SpillFile>(context_.scratch));
}

void LayerStream::CountRead(int64_t bytes) const {
  if (!CountMappedRead(bytes_read_, static_cast<size_t>(bytes))) return;
  for (const auto& file : files_) file->DropPages();
}

LayerStream::Sample LayerStream::Load(int64_t number, int64_t at, SpillFile& file) const {
  const std::vector<ValueInfo> inputs = CallerInputs(original_.graph);
  const std::vector<Tensor> given =
      context_.calibration->Sample(samples_[static_cast<size_t>(number)], inputs);
  Sample sample;
  sample.number = number;
  for (size_t i = 0; i < inputs.size(); ++i) {
    sample.original.emplace(inputs[i].name, KeptCopy(given[i], at < stays_[0], file));
  }
  return sample;
}

// As the values of the first sample tell: what is alive before each node, of both models.
std::vector<int64_t> LayerStream::FindCapacities() {
  const size_t count = original_.graph.nodes.size();
  std::vector<int64_t> appears(count + 1, 0);  // bytes by the node that they are first alive before
  std::unordered_map<std::string, size_t> producer;
  for (size_t i = 0; i < count; ++i) {
    for (const std::string& output : original_.graph.nodes[i].outputs) producer[output] = i;
  }
  const Observer observe = [&](const std::string& value, const Tensor& tensor) {
    const auto last = last_use_.find(value);
    const auto made = producer.find(value);
    if (last == last_use_.end()) return;
    if (made != producer.end() && is_constant_[made->second]) return;
    const int64_t bytes = BytesOf(tensor);
    appears[made == producer.end() ? 0 : made->second + 1] += bytes;
    appears[last->second + 1] -= bytes;
  };
  const Executor executor(original_, {.fuse = false, .seed = context_.seed});
  executor.Run(context_.calibration->Sample(samples_[0], executor.inputs()), &observe);
  std::partial_sum(appears.begin(), appears.end(), appears.begin());
  const int64_t memory = kSamplesInMemory * std::ranges::max(appears);
  for (const int64_t bytes : appears) {
    stays_.push_back(std::max(kSamplesInMemory, memory / std::max<int64_t>(1, bytes)));
  }
  std::vector<int64_t> capacities(count);
  int64_t most = 1;
  for (size_t i = count; i-- > 0;) {
    most = std::max(most, appears[i]);
    capacities[i] = std::max<int64_t>(1, live_bytes_max_ / (2 * most));
  }
  return capacities;
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
  for (const std::string& name : CapturedNamesOf(node)) names.push_back(name);
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

// Nodes [begin, end) of `model` as a model of its own.
Model LayerStream::Segment(const Model& model, size_t begin, size_t end,
                           const Values& values) const {
  Model segment;
  segment.ir_version = model.ir_version;
  segment.opsets = model.opsets;
  segment.functions = model.functions;
  segment.graph.name = "segment";
  segment.graph.sparse_initializers = model.graph.sparse_initializers;
  std::vector<size_t> taken;
  std::set<std::string> read;
  for (size_t i = begin; i < end; ++i) {
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
  for (size_t i = begin; i < end; ++i) {
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

void LayerStream::RunSegment(const Model& segment, size_t end, bool is_edited,
                             std::vector<Sample>& samples, int64_t first) {
  std::optional<Executor> executor;
  if (!segment.graph.outputs.empty()) {
    executor.emplace(FuseFloat(segment), ExecutorOptions{.fuse = false, .seed = context_.seed});
  }
  SpillFile& file = NewFile();
  const int64_t stays = stays_[end];
  tbb::parallel_for(size_t{0}, samples.size(), [&](size_t at) {
    if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while reconstructing");
    Sample& sample = samples[at];
    Values& values = is_edited ? sample.edited : sample.original;
    const int64_t number = first + static_cast<int64_t>(at);
    if (executor) {
      std::vector<Tensor> inputs;
      for (const ValueInfo& input : executor->inputs()) inputs.push_back(values.at(input.name));
      const std::vector<Tensor> outputs = executor->Run(inputs);
      for (size_t i = 0; i < outputs.size(); ++i) {
        values.insert_or_assign(executor->outputs()[i].name,
                                KeptCopy(outputs[i], number < stays, file));
      }
      for (const Tensor& input : inputs) CountRead(BytesOf(input));
    }
    Forget(values, end);
  });
}

// The last ones, where samples of other shapes than the first one's take more than was thought.
void LayerStream::DropSamples() {
  int64_t bytes = 0;
  size_t kept = 0;
  for (const Sample& sample : live_) {
    bytes += 2 * BytesOf(sample.original);
    if (kept > 0 && bytes > live_bytes_max_) break;
    ++kept;
  }
  live_.resize(kept);
}

void LayerStream::JoinSamples(size_t index, const Model& edited) {
  const int64_t capacity = std::min(std::ssize(samples_), capacities_[index]);
  const bool is_worth_it = capacity == std::ssize(samples_) || 2 * capacity > 3 * std::ssize(live_);
  if (!is_worth_it || capacity <= std::ssize(live_)) return;
  std::vector<int64_t> absent;
  size_t next = 0;
  for (int64_t number = 0; number < std::ssize(samples_); ++number) {
    if (next < live_.size() && live_[next].number == number) {
      ++next;
    } else {
      absent.push_back(number);
    }
  }
  const int64_t joining = capacity - std::ssize(live_), first = std::ssize(live_);
  SpillFile& file = NewFile();
  std::vector<Sample> joined;
  for (int64_t i = 0; i < joining; ++i) {
    Sample sample =
        Load(absent[static_cast<size_t>(i * std::ssize(absent) / joining)], first + i, file);
    if (is_split_) sample.edited = sample.original;
    joined.push_back(std::move(sample));
  }
  const Values& given = joined[0].original;
  if (is_split_) RunSegment(Segment(edited, 0, index, given), index, true, joined, first);
  RunSegment(Segment(original_, 0, index, given), index, false, joined, first);
  std::ranges::move(joined, std::back_inserter(live_));
  std::ranges::sort(live_, {}, &Sample::number);
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
  if (is_split_) RunSegment(Segment(edited, at_, index, live_[0].edited), index, true, live_, 0);
  RunSegment(Segment(original_, at_, index, live_[0].original), index, false, live_, 0);
  DropSamples();
  JoinSamples(index, edited);
  std::erase_if(files_, [](const auto& file) { return file->is_unused(); });
  at_ = index;
}

}  // namespace pared
