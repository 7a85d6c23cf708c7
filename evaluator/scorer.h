// Accuracy of a model on a dataset: facts of each sample, taken by any thread, and their summary.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "evaluator/dataset.h"
#include "model/tensor.h"

namespace pared {

class Scorer {
 public:
  virtual ~Scorer() = default;

  // The measured output for a sample, and the float model's. Called once a sample, by any thread.
  // Throws kInvalidArgument where the output has not the form that the dataset's task needs.
  virtual void Add(int64_t sample, const Tensor& reference, const Tensor& output) = 0;

  // Metric name to value (docs/data.md). The same for any number of threads.
  virtual std::map<std::string, double> Summarize() const = 0;
};

// The output's elements, or their means over all axes but the last.
std::vector<float> Pooled(const Tensor& output, Pooling pooling);

// By the dataset's task; null: it has nothing to score by. `samples`: the first so many.
std::unique_ptr<Scorer> MakeScorer(const Dataset& dataset, int64_t samples);

}  // namespace pared
