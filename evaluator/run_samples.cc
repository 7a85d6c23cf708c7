#include "evaluator/run_samples.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"

namespace pared {
namespace {

// Recorded states are kept in memory for all samples.
constexpr int64_t kStateBytesMax = int64_t{2} << 30;

struct StateLink {
  size_t input = 0, output = 0;  // places among the model's
};

size_t PlaceOf(const std::vector<ValueInfo>& values, const std::string& name,
               const std::string& where) {
  const auto found = std::ranges::find(values, name, &ValueInfo::name);
  if (found != values.end()) return static_cast<size_t>(found - values.begin());
  throw Error(ErrorCode::kInvalidArgument, "the model has no \"" + name + "\"", where);
}

std::vector<StateLink> LinksOf(const Executor& executor, const Dataset& dataset) {
  std::vector<StateLink> links;
  for (const auto& [input, output] : dataset.state()) {
    const std::string where = "/state/" + input;
    links.push_back(
        {PlaceOf(executor.inputs(), input, where), PlaceOf(executor.outputs(), output, where)});
  }
  return links;
}

// [begin, end) of each sequence within the first `count` samples.
std::vector<std::pair<int64_t, int64_t>> SequencesOf(const Dataset& dataset, int64_t count) {
  std::vector<std::pair<int64_t, int64_t>> sequences;
  for (const int64_t begin : dataset.sequence_starts()) {
    if (!sequences.empty()) sequences.back().second = std::min(begin, count);
    if (begin < count) sequences.emplace_back(begin, count);
  }
  return sequences;
}

// One tensor of all states of an input.
Tensor Stacked(const std::vector<Tensor>& states, const std::string& input) {
  Shape shape = states.front().shape();
  const size_t bytes_each = states.front().bytes().size();
  if (std::ssize(states) * static_cast<int64_t>(bytes_each) > kStateBytesMax) {
    throw Error(ErrorCode::kInvalidArgument,
                "the states of " + std::to_string(states.size()) + " samples take more than " +
                    std::to_string(kStateBytesMax) + " bytes; calibrate with fewer",
                "/state/" + input);
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(states.size() * bytes_each);
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i].shape() != shape) {
      throw Error(ErrorCode::kInvalidArgument,
                  "has the shape " + ShapeText(states[i].shape()) + " at sample " +
                      std::to_string(i) + ", at first " + ShapeText(shape),
                  "/state/" + input);
    }
    std::memcpy(bytes->data() + i * bytes_each, states[i].bytes().data(), bytes_each);
  }
  shape.insert(shape.begin(), std::ssize(states));
  return Tensor::View(states.front().dtype(), std::move(shape), *bytes, bytes);
}

}  // namespace

void RunSamples(const Executor& executor, const RunSamplesContext& context,
                const std::function<void(const SampleRun&)>& visit) {
  const Dataset& dataset = *context.dataset;
  const std::vector<StateLink> links = LinksOf(executor, dataset);
  const int64_t step = std::max<int64_t>(1, context.count / 100);
  std::atomic<int64_t> done = 0;
  const auto run = [&](int64_t sample, std::vector<Tensor>* state) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "the evaluation was cancelled");
    std::vector<Tensor> inputs = dataset.Sample(sample, executor.inputs());
    for (size_t i = 0; state != nullptr && i < state->size(); ++i) {
      inputs[links[i].input] = std::move((*state)[i]);
    }
    const std::vector<Tensor> outputs = context.profile != nullptr && sample == 0
                                            ? executor.RunTimed(inputs, *context.profile)
                                            : executor.Run(inputs);
    PARED_CHECK(!outputs.empty());
    if (state != nullptr) {
      state->clear();
      for (const StateLink& link : links) state->push_back(outputs[link.output]);
    }
    visit({sample, inputs, outputs});
    const int64_t now = ++done;
    if (now % step == 0) {
      context.progress(static_cast<double>(now) / static_cast<double>(context.count));
    }
  };
  if (links.empty()) {
    tbb::parallel_for(int64_t{0}, context.count, [&](int64_t sample) { run(sample, nullptr); });
    return;
  }
  const auto sequences = SequencesOf(dataset, context.count);
  tbb::parallel_for(size_t{0}, sequences.size(), [&](size_t i) {
    std::vector<Tensor> state;
    for (int64_t sample = sequences[i].first; sample < sequences[i].second; ++sample) {
      run(sample, &state);
    }
  });
}

int64_t RepeatsOf(const Dataset& dataset, const std::vector<ValueInfo>& inputs) {
  std::vector<ValueInfo> free = inputs;
  bool is_fixed = false;
  for (ValueInfo& input : free) {
    if (!input.shape || input.shape->empty() || input.shape->front().value <= 1) continue;
    is_fixed = true;
    input.shape->front().value = -1;
  }
  if (!is_fixed || dataset.sample_count() == 0) return 1;
  const std::vector<Tensor> one = dataset.Sample(0, free);
  for (size_t i = 0; i < one.size(); ++i) {
    if (!inputs[i].shape || inputs[i].shape->empty() || one[i].rank() == 0) continue;
    const int64_t batch = inputs[i].shape->front().value;
    if (batch > 1 && one[i].shape()[0] == 1 && !dataset.state().contains(inputs[i].name)) {
      return batch;
    }
  }
  return 1;
}

void RecordStates(const Model& model, Dataset& dataset, const std::function<bool()>& cancelled) {
  if (dataset.state().empty()) return;
  const Executor executor(model);
  RunSamplesContext context;
  context.dataset = &dataset;
  context.count = dataset.sample_count();
  context.cancelled = cancelled;
  std::map<std::string, std::vector<Tensor>> recorded;  // by input, one a sample
  for (const auto& [input, output] : dataset.state()) {
    recorded[input].resize(static_cast<size_t>(context.count));
  }
  RunSamples(executor, context, [&](const SampleRun& run) {
    for (auto& [input, states] : recorded) {
      const size_t place = PlaceOf(executor.inputs(), input, "/state/" + input);
      states[static_cast<size_t>(run.sample)] = run.inputs[place];
    }
  });
  for (auto& [input, states] : recorded) dataset.SetStates(input, Stacked(states, input));
}

}  // namespace pared
