#include "passes/judged_values.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;
using Values = std::vector<std::string>;

constexpr int64_t kPartsMax = 16;  // of an output that nothing is picked for

// Operators that hand the elements of their first input on, or say where some of them are.
const Names kHanding = {"Transpose", "Reshape",    "Identity", "Squeeze", "Unsqueeze", "Flatten",
                        "Softmax",   "LogSoftmax", "Cast",     "ArgMax",  "ArgMin",    "TopK"};

// Operators that pick elements of their first input at places that were computed: a detector's best
// boxes. Which these are, and how many, turns on the last bit; what they are picked from does not.
const Names kPicking = {"Gather", "GatherND", "GatherElements", "Compress"};

// Operators whose results say which elements are picked.
const Names kSelecting = {"NonMaxSuppression", "TopK", "NonZero"};

// What follows the picking: boxes are scaled, clipped, split, padded to a fixed number.
const Names kMoving = {"Slice", "Split", "Expand", "Tile", "Pad"};
const Names kScattering = {"ScatterND", "ScatterElements"};  // of inputs 0 and 2
const Names kElementwise = {"Add",     "Sub",   "Mul",  "Div",     "Pow",        "Min",  "Max",
                            "Sum",     "Mean",  "Clip", "Sqrt",    "Exp",        "Log",  "Neg",
                            "Abs",     "Floor", "Ceil", "Round",   "Reciprocal", "Relu", "Where",
                            "Sigmoid", "Tanh",  "Sign", "Dropout", "PRelu",      "Mod",  "Erf"};

class PartFinder {
 public:
  explicit PartFinder(const Graph& graph) : index_(graph) {
    const auto is_selected = [&](const std::string& value) { return selected_.contains(value); };
    for (const Node& node : graph.nodes) {
      if (Selects(node) || std::ranges::any_of(node.inputs, is_selected) ||
          std::ranges::any_of(CapturedNamesOf(node), is_selected)) {
        selected_.insert(node.outputs.begin(), node.outputs.end());
      }
    }
    selected_.erase("");
  }

  // Whether `output`, whose parts were found last, was picked, whatever was done to it since.
  bool is_picked() const { return is_picked_; }

  Values PartsOf(const std::string& output) {
    parts_.clear();
    visited_.clear();
    is_picked_ = false;
    Add(output, false);
    const bool is_too_many = !is_picked_ && std::ssize(parts_) > kPartsMax;
    // Of constants that are picked nothing is left.
    if (is_too_many || (parts_.empty() && is_picked_)) return Values{output};
    return parts_;
  }

 private:
  // `is_picked`: what was handed on to the output is picked from the value.
  void Add(const std::string& value, bool is_picked) {
    const Node* node = index_.producer(value);
    if (node == nullptr || node->inputs.empty() || !visited_.insert(value).second) return;
    const bool is_pick = IsPick(*node) || node->op_type == "TopK";
    const auto before = Before(*node, is_picked);
    if (!before) {
      parts_.push_back(value);
      return;
    }
    is_picked_ = is_picked_ || is_pick;
    for (const std::string& input : *before) Add(input, is_picked || is_pick);
  }

  bool IsMade(const std::string& value) const { return index_.producer(value) != nullptr; }

  bool IsPick(const Node& node) const {
    if (node.op_type == "NonMaxSuppression") return true;
    return kPicking.contains(node.op_type) && selected_.contains(node.inputs[1]);
  }

  // The values that the result of the node is judged by; nullopt: by itself.
  std::optional<Values> Before(const Node& node, bool is_picked) {
    const std::string& op = node.op_type;
    if (op == "Concat") return node.inputs;
    if (op == "NonMaxSuppression")
      return Values{node.inputs[0], node.inputs[1]};  // boxes and scores
    if (kPicking.contains(op) && IsMade(node.inputs[1]) && IsMade(node.inputs[0])) {
      return Values{node.inputs[0]};
    }
    if (IsPick(node)) return Values{};
    if (kHanding.contains(op) && IsMade(node.inputs[0])) return Values{node.inputs[0]};
    const bool is_part = kMoving.contains(op) || kPicking.contains(op);
    if (is_part && is_picked && IsMade(node.inputs[0])) return Values{node.inputs[0]};
    if (HasPickBehind(node)) return Operands(node);
    return std::nullopt;
  }

  // What the elements of the result are made of, where each is made of one of every operand.
  static Values Operands(const Node& node) {
    const std::string& op = node.op_type;
    if (op == "Where") return {node.inputs[1], node.inputs[2]};
    if (kScattering.contains(op)) return {node.inputs[0], node.inputs[2]};
    if (op == "Concat" || kElementwise.contains(op)) return node.inputs;
    const bool is_first = kHanding.contains(op) || kMoving.contains(op) || kPicking.contains(op);
    return is_first ? Values{node.inputs[0]} : Values{};
  }

  // Whether an operand of the node was picked at computed places, whatever was done to it since.
  bool HasPickBehind(const Node& node) {
    return std::ranges::any_of(Operands(node), [&](const std::string& value) {
      const Node* maker = index_.producer(value);
      if (maker == nullptr || maker->inputs.empty() || !selected_.contains(value)) return false;
      const auto [known, is_new] = has_pick_.emplace(value, false);
      if (!is_new) return known->second;
      const bool has_pick = maker->op_type == "TopK" || IsPick(*maker) || HasPickBehind(*maker);
      has_pick_[value] = has_pick;
      return has_pick;
    });
  }

  const GraphIndex index_;
  Names selected_;  // values that a selection has a part in
  std::unordered_map<std::string, bool> has_pick_;
  Values parts_;
  Names visited_;
  bool is_picked_ = false;
};

}  // namespace

bool Selects(const Node& node) {
  if (kSelecting.contains(node.op_type)) return true;
  return std::ranges::any_of(SubgraphsOf(node), [](const GraphPtr& graph) {
    return std::ranges::any_of(graph->nodes, Selects);
  });
}

std::vector<std::string> JudgedValues(const Graph& graph) {
  PartFinder finder(graph);
  Values judged;
  for (const ValueInfo& output : graph.outputs) {
    for (const std::string& part : finder.PartsOf(output.name)) {
      if (std::ranges::find(judged, part) == judged.end()) judged.push_back(part);
    }
  }
  return judged;
}

std::vector<std::string> StoodForOutputs(const Graph& graph) {
  PartFinder finder(graph);
  Values outputs;
  for (const ValueInfo& output : graph.outputs) {
    const bool is_itself = finder.PartsOf(output.name) == Values{output.name};
    if (!is_itself && !finder.is_picked()) outputs.push_back(output.name);
  }
  return outputs;
}

}  // namespace pared
