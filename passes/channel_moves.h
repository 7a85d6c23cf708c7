// Where the operators that only move elements take a value's channels.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/infer_shapes.h"
#include "passes/channel_groups.h"

namespace pared {

// What is known of the operands of the main graph's nodes. `model` must outlive this.
class Operands {
 public:
  explicit Operands(const Model& model);

  const Model& model() const { return model_; }
  const GraphIndex& index() const { return index_; }

  static bool IsLeftOut(const Node& node, size_t input) {
    return input >= node.inputs.size() || node.inputs[input].empty();
  }
  // Null: left out, or no constant (of float32).
  const Tensor* Constant(const Node& node, size_t input) const;
  const Tensor* Weight(const Node& node, size_t input) const;
  // A constant of int64; IntsOf: or an attribute, as older opsets have it.
  std::optional<std::vector<int64_t>> Ints(const Node& node, size_t input) const;
  std::optional<std::vector<int64_t>> IntsOf(const Node& node, const std::string& attribute,
                                             size_t input) const;
  // Dimensions, -1 where not known; nullopt: rank not known.
  std::optional<Shape> ShapeOf(const std::string& value) const;

 private:
  const Model& model_;
  GraphIndex index_;
  std::unordered_map<std::string, ValueType> types_;
};

struct ChannelMove {
  static constexpr size_t kItself = ~size_t{0};
  std::vector<Channels> outputs;    // as many as the node has, or none to follow
  std::vector<SizeCut> sizes = {};  // of node kItself: the one that moves
  int64_t parts = 1;                // of the input: equal ones that must lose as many each
};

// nullopt: not an operator that only moves, or a way that cannot be followed.
std::optional<ChannelMove> MoveChannels(const Node& node, const Channels& in,
                                        const Operands& operands);

// Each id `times` times, one after the other.
std::vector<int64_t> RepeatChannels(const std::vector<int64_t>& ids, int64_t times);

}  // namespace pared
