#include "passes/decided_lengths.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace pared {
namespace {

using Nodes = std::unordered_set<const Node*>;
using Types = std::unordered_map<std::string, ValueType>;

// The inputs that say how large the result is.
const std::map<std::string, std::vector<size_t>> kSizes = {{"ConstantOfShape", {0}},
                                                           {"Expand", {1}},
                                                           {"Loop", {0}},
                                                           {"OneHot", {1}},
                                                           {"Pad", {1}},
                                                           {"Range", {0, 1, 2}},
                                                           {"Reshape", {1}},
                                                           {"Slice", {1, 2}},
                                                           {"Split", {1}},
                                                           {"Tile", {1}},
                                                           {"TopK", {1}}};

const std::unordered_set<std::string> kWeighted = {"Conv", "ConvTranspose", "Gemm", "MatMul",
                                                   "LSTM", "GRU",           "RNN"};

class Finder {
 public:
  Finder(const Model& model, const GraphIndex& index, const Types& types)
      : model_(model), index_(index), types_(types) {}

  Nodes Run() {
    for (const Node& node : model_.graph.nodes) {
      const auto sizes = kSizes.find(node.op_type);
      if (sizes == kSizes.end()) continue;
      for (const size_t input : sizes->second) {
        if (input < node.inputs.size()) FollowIntegers(node.inputs[input]);
      }
    }
    return std::move(found_);
  }

 private:
  bool IsFloat(const std::string& value) const {
    const auto type = types_.find(value);
    return type != types_.end() &&
           (type->second.dtype == DType::kFloat32 || type->second.dtype == DType::kFloat16);
  }

  // Back to the Casts that made integers of floats. Operators that find places (ArgMax, NonZero,
  // NonMaxSuppression) end the search: what they read is the whole model.
  void FollowIntegers(const std::string& value) {
    std::vector<const Node*> open = {index_.producer(value)};
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      if (node == nullptr || node->op_type == "Shape" || !seen_.insert(node).second) continue;
      const bool reads_float =
          std::ranges::any_of(node->inputs, [&](const auto& input) { return IsFloat(input); });
      if (reads_float) {
        if (node->op_type == "Cast" || IsFloat(node->outputs[0])) CollectMakers(*node);
        continue;
      }
      for (const std::string& input : node->inputs) open.push_back(index_.producer(input));
    }
  }

  void CollectMakers(const Node& last) {
    std::vector<const Node*> open = {&last};
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      if (node == nullptr || node->op_type == "Shape" || node->op_type == "Size") continue;
      if (!found_.insert(node).second) continue;
      for (const std::string& input : node->inputs) open.push_back(index_.producer(input));
    }
  }

  const Model& model_;
  const GraphIndex& index_;
  const Types& types_;
  Nodes seen_, found_;
};

}  // namespace

std::unordered_set<const Node*> NodesThatDecideLengths(const Model& model) {
  return NodesThatDecideLengths(model, GraphIndex(model.graph), InferShapes(model));
}

std::unordered_set<const Node*> NodesThatDecideLengths(const Model& model, const GraphIndex& index,
                                                       const Types& types) {
  Nodes found = Finder(model, index, types).Run();
  const auto stays = [&](const Node& node) {
    return kWeighted.contains(node.op_type) && !found.contains(&node);
  };
  if (std::ranges::none_of(model.graph.nodes, stays)) return {};
  return found;
}

}  // namespace pared
