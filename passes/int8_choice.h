// Which nodes of the main graph compute in INT8 and which values are quantized for them.
//
// Everything follows from what the nodes are and how they are joined:
//   compute    Conv, ConvTranspose, Gemm, MatMul with a constant weight: INT8 unless excluded.
//   join       Add, Mul, Concat, pools, Resize, shape operators: INT8 where all their inputs come
//              from INT8 nodes and some INT8 node needs their result.
//   pointwise  functions of one value (Relu, Sigmoid, x * Sigmoid(x)): float between two quantized
//              values, which an evaluator computes as one table.
// So what follows the last weighted operators - a detector's decoding, a Softmax - stays float by
// itself, and so do the normalizations and residual sums of a transformer. Float by rule stay
// products with what a Softmax made, and the head of a model of sound, up to the power spectrum
// whose logarithm the rest reads (log_power.h).

#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "config/fields.h"
#include "model/graph.h"
#include "model/infer_shapes.h"
#include "passes/weights.h"

namespace pared {

enum class Int8Role { kFloat, kCompute, kJoin, kPointwise };

struct Int8Choice {
  std::unordered_map<const Node*, Int8Role> roles;
  std::unordered_map<const Node*, const WeightSite*> weights;  // of compute nodes
  std::vector<std::string> values;  // that get QuantizeLinear and DequantizeLinear, in graph order
  // Of these: the ones whose float readers read the quantized value too, because their maker
  // writes INT8 and nothing else.
  std::unordered_set<std::string> only_quantized;
  std::vector<SkippedNode> skipped;

  Int8Role RoleOf(const Node& node) const {
    const auto role = roles.find(&node);
    return role == roles.end() ? Int8Role::kFloat : role->second;
  }
};

struct Int8ChoiceContext {
  const Model* model = nullptr;
  const GraphIndex* index = nullptr;
  const WeightScan* scan = nullptr;
  std::unordered_map<std::string, ValueType> types;
  std::unordered_map<const Node*, std::string> excluded;  // with the reason
  // For runtimes whose products compute in INT8 only where they write codes: the results of all
  // compute nodes are quantized, graph outputs too.
  bool quantizes_results = false;
};

Int8Choice ChooseInt8(const Int8ChoiceContext& context);

// What the choice follows from, besides the model: the excluded nodes, by their places.
Json ExcludedPlaces(const Int8ChoiceContext& context);

// The inputs of a compute or join node that are activations and must be quantized.
std::vector<std::string> QuantizedInputs(const Node& node, const Int8Choice& choice);

// Whether the operator's output has the range of its first input: it only moves elements.
bool KeepsRange(const Node& node);

}  // namespace pared
