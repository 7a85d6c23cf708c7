// Runs a model over the samples of a dataset, and a model that remembers over its sequences.

#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "evaluator/dataset.h"
#include "evaluator/executor.h"

namespace pared {

struct SampleRun {
  int64_t sample = 0;
  std::span<const Tensor> inputs, outputs;
};

struct RunSamplesContext {
  const Dataset* dataset = nullptr;
  int64_t count = 0;  // the first so many samples
  // Called by any thread, possibly several at once.
  std::function<bool()> cancelled = [] { return false; };
  std::function<void(double fraction)> progress = [](double) {};
  std::vector<LayerStats>* profile = nullptr;  // where set: receives that of sample 0
};

// On TBB's threads, one a sample; or one a sequence, in order, where the dataset has a state: then
// each run gets the state that the run before it gave out. `visit` is called by any thread; results
// do not depend on the number of threads where it writes to places of its sample only. Throws
// kCancelled, or kInvalidArgument at "/state/INPUT" where the model has no such input or output.
void RunSamples(const Executor& executor, const RunSamplesContext& context,
                const std::function<void(const SampleRun&)>& visit);

// How often a sample stands in the inputs of a model that takes fixed batches: the batch, or 1
// where the dataset fills it.
int64_t RepeatsOf(const Dataset& dataset, const std::vector<ValueInfo>& inputs);

// Runs `model` over all samples and puts the states that it went through into the dataset, so that
// samples may be run one by one (calibration). Nothing where the dataset has no state.
void RecordStates(const Model& model, Dataset& dataset, const std::function<bool()>& cancelled);

}  // namespace pared
