// How near a quantized model is to its float model, measured on calibration samples.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

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

// Keeps the outputs of the float model, so that many candidates compare with one run of it.
class FidelityJudge {
 public:
  // Looks at `samples_max` samples at most, spread over all.
  FidelityJudge(const Model& model, const PassContext& context, int64_t samples_max);

  // Of the worst float32 output: an average would hide an output that collapses.
  double SqnrDb(const Model& candidate) const;

 private:
  const PassContext& context_;
  std::vector<int64_t> samples_;
  std::vector<std::vector<Tensor>> wanted_;  // per sample
};

// The sensitivity of each compute node: SQNR of its own output where only this node is INT8, its
// input being the float model's. One run over the samples answers for all nodes, since each has an
// INT8 twin that nobody reads.
std::map<std::string, double> NodeSqnrDb(const Model& model, const Int8Choice& choice,
                                         const Model& quantized, const PassContext& context);

}  // namespace pared
