// How near a quantized model is to its float model, measured on calibration samples.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "evaluator/executor.h"
#include "model/graph.h"
#include "passes/int8_choice.h"
#include "passes/pass.h"

namespace pared {

// Signal and noise summed over samples.
struct Fidelity {
  double energy = 0, noise = 0;

  void Add(const Tensor& want, const Tensor& got);
  double sqnr_db() const;  // 200 at most, where nothing differs; -200 at least
};

// Where noise is more than half the signal no accuracy survives: says so in report["warnings"].
void WarnOfCollapse(double sqnr_db, Json& report);

// The values by which a model is judged: its outputs, and in place of an output that a last Concat
// joins, its parts - the coordinates of boxes would hide what becomes of their scores - in place of
// a last Softmax, what it is made of: probabilities near 0 and 1 hide all but a few samples - and
// in place of what is picked at computed places (NonMaxSuppression, TopK), what it is picked from.
std::vector<std::string> JudgedValues(const Graph& graph);

// Keeps the judged values of the float model, so that many candidates compare with one run of it.
class FidelityJudge {
 public:
  // Looks at `samples_max` samples at most, spread over all.
  FidelityJudge(const Model& model, PassContext& context, int64_t samples_max)
      : FidelityJudge(model, context, samples_max, JudgedValues(model.graph)) {}
  // By these values; what a candidate does not make under its name is passed over.
  FidelityJudge(const Model& model, PassContext& context, int64_t samples_max,
                std::vector<std::string> judged);

  // Of the worst judged value: an average would hide an output that collapses. Samples whose If
  // takes another branch than in the float model are left out, half of all at most: one result of
  // another layer would hide what all others have. Where the first samples tell that it will be
  // below `least_db`, the others are not run and the result is anything below that.
  double SqnrDb(const Model& candidate, double least_db = -1e9) const;

 private:
  using Values = std::unordered_map<std::string, Tensor>;
  Executor Watching(Model model) const;
  bool HasTurned(const Values& wanted, const Values& got) const;
  std::vector<Values> Watch(const Executor& executor, std::span<const int64_t> samples) const;

  const PassContext& context_;
  std::vector<int64_t> samples_;
  std::vector<std::string> judged_;
  std::vector<std::string> conditions_;  // of If, that the graph computes; among the judged
  std::shared_ptr<const std::vector<Values>> wanted_;  // per sample
  std::map<std::string, double> energies_;             // of each value, over all samples
};

// The sensitivity of each compute node: SQNR of its own output where only this node is INT8, its
// input being the float model's. One run over the samples answers for all nodes, since each has an
// INT8 twin that nobody reads.
std::map<std::string, double> NodeSqnrDb(const Model& model, const Int8Choice& choice,
                                         const Model& quantized, const PassContext& context);

}  // namespace pared
