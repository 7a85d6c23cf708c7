// What a model makes within, so that a candidate that differs from it in a few nodes is run from
// these on.
//
// Before:  a = Conv(x, w)  b = Conv(a, v)  y = Gemm(b, u)       candidate: quantizes Gemm alone
// After:   y = Gemm(b, u)                                       b at an input

#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/graph.h"
#include "passes/pass.h"

namespace pared {

class KnownValues {
 public:
  // Runs these samples of context.calibration. Of what the nodes of the main graph make the
  // smallest values are kept, since they stand last in a network, up to `bytes_max` over all
  // samples; those of nodes with several outputs are not.
  KnownValues(const Model& model, const PassContext& context, const std::vector<int64_t>& samples,
              int64_t bytes_max);

  // Values that `candidate` has as the model has them become inputs, the last ones, where something
  // else follows from them; what made them goes, and outputs that are such values go too. Returns
  // the new inputs in order.
  std::vector<std::string> Feed(Model& candidate) const;

  // `sample` is an index into the constructor's list; `value` one that Feed named.
  const Tensor& at(size_t sample, const std::string& value) const;

 private:
  using Values = std::unordered_map<std::string, Tensor>;
  using Names = std::unordered_set<std::string>;
  bool IsKept(const std::string& value) const;
  bool IsSame(const Node& node) const;
  Names Changed(const Graph& candidate) const;

  Graph graph_;                                     // of the model
  std::unordered_map<std::string, size_t> makers_;  // indices of nodes by their first outputs
  std::unordered_map<std::string, ValueInfo> types_;
  std::vector<Values> samples_;
};

}  // namespace pared
