#include "passes/int8_choice.h"

#include <algorithm>

#include "model/domain.h"
#include "passes/decided_lengths.h"
#include "passes/decoded_distribution.h"
#include "passes/index_values.h"
#include "passes/log_power.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

using Names = std::unordered_set<std::string>;

const Names kCompute = {"Conv", "ConvTranspose", "Gemm", "MatMul"};

const Names kParting = {"Slice", "Gather", "Split"};  // of kMovingOps, those that leave some out
const Names kJoining = {"Add",    "Mul",          "Concat", "AveragePool", "GlobalAveragePool",
                        "Resize", "GlobalMaxPool"};

const Names kUnary = {
    "Abs",  "Celu",     "Ceil",       "Clip",        "Dropout",   "Elu",       "Erf",
    "Exp",  "Floor",    "Gelu",       "HardSigmoid", "HardSwish", "LeakyRelu", "Log",
    "Mish", "Neg",      "Reciprocal", "Relu",        "Round",     "Selu",      "Sigmoid",
    "Sign", "Softplus", "Softsign",   "Sqrt",        "Swish",     "Tanh",      "ThresholdedRelu"};
const Names kBinary = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"};

class Chooser {
 public:
  explicit Chooser(const Int8ChoiceContext& context)
      : context_(context), graph_(context.model->graph), index_(*context.index) {}

  Int8Choice Run() {
    for (const WeightSite& site : context_.scan->sites) sites_.emplace(site.node, &site);
    choice_.skipped = context_.scan->skipped;
    before_log_ = NodesBeforeLogPower(*context_.model);
    const auto is_before = [&](const auto& entry) { return before_log_.contains(entry.first); };
    // Where the whole model is one, there would be nothing left.
    if (std::ranges::all_of(sites_, is_before)) before_log_.clear();
    lengths_ = NodesThatDecideLengths(*context_.model, index_, context_.types);
    integers_ = NodesOfIntegers(graph_, index_, context_.types, context_.model->ir_version);
    FindCones();
    for (const Node& node : graph_.nodes) AssignRole(node);
    ReportOthers();
    while (DropIdleJoins()) {
    }
    CollectValues();
    return std::move(choice_);
  }

 private:
  bool IsConstant(const std::string& value) const {
    return ConstantOf(graph_, index_, value, context_.model->ir_version) != nullptr;
  }

  DType TypeOf(const std::string& value) const {
    const auto type = context_.types.find(value);
    return type == context_.types.end() ? DType::kUndefined : type->second.dtype;
  }

  bool IsFloat(const std::string& value) const { return TypeOf(value) == DType::kFloat32; }

  // The value that each pointwise result is a function of. A node belongs to a cone where all its
  // inputs but constants lead to one value.
  void FindCones() {
    for (const Node& node : graph_.nodes) {
      if (!IsDefaultDomain(node.domain) || node.outputs.empty()) continue;
      const bool is_unary = kUnary.contains(node.op_type);
      if (!is_unary && !kBinary.contains(node.op_type)) continue;
      Names roots;
      for (size_t i = 0; i < node.inputs.size(); ++i) {
        const std::string& input = node.inputs[i];
        if (input.empty() || IsConstant(input) || (is_unary && i > 0)) continue;
        roots.insert(RootOf(input));
      }
      if (roots.size() == 1) roots_.emplace(node.outputs[0], *roots.begin());
    }
  }

  // A Relu or Clip that a kernel applies as it writes makes a root of its own.
  std::string RootOf(const std::string& value) const {
    const auto root = roots_.find(value);
    if (root == roots_.end()) return value;
    const Node* producer = index_.producer(value);
    const bool is_clip = producer->op_type == "Relu" || producer->op_type == "Clip";
    return is_clip && producer->inputs[0] == root->second && GoesIntoClip(root->second)
               ? value
               : root->second;
  }

  void AssignRole(const Node& node) {
    if (!IsDefaultDomain(node.domain) || node.outputs.empty()) return;
    if (kCompute.contains(node.op_type)) {
      AssignCompute(node);
    } else if (!IsFloat(node.outputs[0])) {
      return;
    } else if (roots_.contains(node.outputs[0])) {
      choice_.roles[&node] = Int8Role::kPointwise;
    } else if ((kMovingOps.contains(node.op_type) || kJoining.contains(node.op_type)) &&
               !context_.excluded.contains(&node) && CanJoin(node) && !IsPartOfFloat(node)) {
      choice_.roles[&node] = Int8Role::kJoin;
    }
  }

  void AssignCompute(const Node& node) {
    const auto site = sites_.find(&node);
    if (site == sites_.end()) return;  // reported by the scan
    const std::string reason = WhyFloat(node, *site->second);
    if (!reason.empty()) {
      choice_.skipped.push_back({&node, reason});
      return;
    }
    choice_.roles[&node] = Int8Role::kCompute;
    choice_.weights[&node] = site->second;
  }

  std::string WhyFloat(const Node& node, const WeightSite& site) const {
    if (const auto kept = context_.excluded.find(&node); kept != context_.excluded.end()) {
      return kept->second;
    }
    const std::string& activation = node.inputs[1 - site.input];
    if (site.stored.dtype() != DType::kFloat32) return "its weight is not float32";
    // One that is not known has the type of the weight.
    const DType type = TypeOf(activation);
    if (type != DType::kFloat32 && type != DType::kUndefined) return "its input is not float32";
    if (site.stored.count() == 0) return "its weight has no elements";
    if (IsConstant(activation)) return "all its inputs are constants";
    if (IsDistribution(index_, activation)) return kDecodesDistribution;
    if (lengths_.contains(&node)) return kDecidesLength;
    if (integers_.contains(&node)) return kEndsAsIntegers;
    if (before_log_.contains(&node)) {
      return "it makes a power whose logarithm is taken, which a step of INT8 moves by decibels";
    }
    return "";
  }

  // What it takes out of a float value may need a far smaller scale than the whole: where nothing
  // is gained by codes of the whole, its result alone gets them.
  bool IsPartOfFloat(const Node& node) const {
    if (!kParting.contains(node.op_type)) return false;
    const Node* producer = MakerOf(index_, node.inputs[0]);
    return producer == nullptr || !choice_.roles.contains(producer);
  }

  bool CanJoin(const Node& node) const {
    for (size_t i = 1; i < node.outputs.size(); ++i) {
      if (node.op_type != "Split" && !node.outputs[i].empty()) return false;  // MaxPool's indices
    }
    if (node.op_type == "Pad") {
      if (node.String("mode", "constant") != "constant") return true;
      return node.inputs.size() < 3 || node.inputs[2].empty() || IsZero(node.inputs[2]);
    }
    if (node.op_type == "Resize" && node.String("mode", "nearest") == "cubic") return false;
    if (node.op_type == "Gather" && IsConstant(node.inputs[0])) return false;  // a table look-up
    for (const std::string& input : ActivationInputs(node)) {
      if (!IsFloat(input) || IsConstant(input)) return false;
    }
    return true;
  }

  bool IsZero(const std::string& value) const {
    const Tensor* constant = ConstantOf(graph_, index_, value, context_.model->ir_version);
    return constant != nullptr && constant->dtype() == DType::kFloat32 && constant->count() == 1 &&
           constant->data<float>()[0] == 0;
  }

  std::vector<std::string> ActivationInputs(const Node& node) const {
    return QuantizedInputs(node, choice_);
  }

  // Nodes with weights that have no role to be assigned.
  void ReportOthers() {
    const Node* last = nullptr;
    for (const WeightSite& site : context_.scan->sites) {
      if (site.node == last) continue;  // the second weight of a recurrent layer
      last = site.node;
      if (!kCompute.contains(last->op_type)) {
        choice_.skipped.push_back({last, last->op_type +
                                             " has no form with scales known beforehand: "
                                             "\"quantize_weights\" stores its weights in 8 bits"});
      } else if (site.graph != &graph_) {
        choice_.skipped.push_back(
            {last, "inside a body of Loop or Scan, whose values calibration does not see"});
      }
    }
  }

  // Whether a quantized form of the value helps some INT8 node.
  bool IsWanted(const std::string& value) {
    const auto [known, is_new] = wanted_.emplace(value, false);
    if (is_new) {
      const bool is_wanted = FindWanted(value);
      wanted_[value] = is_wanted;
      return is_wanted;
    }
    return known->second;
  }

  bool FindWanted(const std::string& value) {
    for (const Node* reader : index_.consumers(value)) {
      const Int8Role role = choice_.RoleOf(*reader);
      if (role == Int8Role::kPointwise && IsWanted(reader->outputs[0])) return true;
      if (role != Int8Role::kCompute && role != Int8Role::kJoin) continue;
      const std::vector<std::string> inputs = ActivationInputs(*reader);
      if (std::ranges::find(inputs, value) != inputs.end()) return true;
    }
    return false;
  }

  // Whether the value comes, through functions of one value, from an INT8 node or from outside.
  bool IsSourced(const std::string& value) const {
    const Node* writer = WriterOf(RootOf(value));
    if (writer == nullptr) return true;
    const Int8Role role = choice_.RoleOf(*writer);
    return role == Int8Role::kCompute || role == Int8Role::kJoin;
  }

  // Drops joins that would only cost accuracy; true: some were dropped.
  bool DropIdleJoins() {
    bool dropped = false;
    wanted_.clear();
    for (auto node = graph_.nodes.rbegin(); node != graph_.nodes.rend(); ++node) {
      if (choice_.RoleOf(*node) != Int8Role::kJoin) continue;
      const bool is_wanted = std::ranges::any_of(
          node->outputs, [&](const std::string& output) { return IsWanted(output); });
      const std::vector<std::string> inputs = ActivationInputs(*node);
      const bool is_sourced =
          std::ranges::all_of(inputs, [&](const std::string& input) { return IsSourced(input); });
      if (is_wanted && is_sourced) continue;
      choice_.roles.erase(&*node);
      dropped = true;
    }
    return dropped;
  }

  // Whether the only reader of `value` is a Relu or Clip, which a kernel applies as it writes.
  bool GoesIntoClip(const std::string& value) const {
    const std::vector<const Node*>& readers = index_.consumers(value);
    return readers.size() == 1 && !index_.is_output(value) &&
           (readers[0]->op_type == "Relu" || readers[0]->op_type == "Clip") &&
           readers[0]->inputs[0] == value;
  }

  // The node that computes `value`, looking through a Relu or Clip that it writes.
  const Node* WriterOf(const std::string& value) const {
    const Node* producer = index_.producer(value);
    while (producer != nullptr && (producer->op_type == "Relu" || producer->op_type == "Clip") &&
           GoesIntoClip(producer->inputs[0])) {
      producer = index_.producer(producer->inputs[0]);
    }
    return producer;
  }

  void CollectValues() {
    wanted_.clear();
    Names needed;
    for (const Node& node : graph_.nodes) {
      const Int8Role role = choice_.RoleOf(node);
      if (role != Int8Role::kCompute && role != Int8Role::kJoin) continue;
      for (const std::string& input : ActivationInputs(node)) needed.insert(input);
      if (role == Int8Role::kJoin) needed.insert(node.outputs.begin(), node.outputs.end());
      if (role == Int8Role::kCompute && context_.quantizes_results) {
        needed.insert(Clipped(node.outputs[0]));
      }
    }
    // The roots of functions whose result is quantized, where the maker of the root gains by it.
    for (const Node& node : graph_.nodes) {
      if (choice_.RoleOf(node) != Int8Role::kPointwise) continue;
      if (!IsWanted(node.outputs[0])) {
        choice_.roles.erase(&node);
        continue;
      }
      const std::string root = RootOf(node.outputs[0]);
      if (GoesIntoClip(root)) continue;
      if (WritesInt8(root)) needed.insert(root);
    }
    // A join writes INT8 after its Relu, not before.
    std::erase_if(needed, [&](const std::string& value) {
      return GoesIntoClip(value) && IsJoinResult(value) && needed.contains(ClipResult(value));
    });
    const auto add = [&](const std::string& value) {
      if (!needed.erase(value)) return;
      choice_.values.push_back(value);
      const bool may_change = !index_.is_output(value) || context_.quantizes_results;
      if (WritesInt8(value) && may_change) choice_.only_quantized.insert(value);
    };
    for (const ValueInfo& input : graph_.inputs) add(input.name);
    for (const Node& node : graph_.nodes) {
      for (const std::string& output : node.outputs) add(output);
    }
  }

  bool IsJoinResult(const std::string& value) const {
    const Node* producer = index_.producer(value);
    return producer != nullptr && choice_.RoleOf(*producer) == Int8Role::kJoin;
  }
  // What a kernel writes that computes `value`: behind the Relu and Clip that it applies.
  std::string Clipped(const std::string& value) const {
    return GoesIntoClip(value) ? Clipped(ClipResult(value)) : value;
  }
  std::string ClipResult(const std::string& value) const {
    return index_.consumers(value)[0]->outputs[0];
  }

  // Convolutions and joins hand INT8 on; a matrix product writes float at no cost, but for runtimes
  // that have no such product.
  bool WritesInt8(const std::string& value) const {
    const Node* writer = WriterOf(value);
    if (writer == nullptr) return false;
    const Int8Role role = choice_.RoleOf(*writer);
    if (role == Int8Role::kJoin) return true;
    if (role != Int8Role::kCompute) return false;
    return context_.quantizes_results || writer->op_type == "Conv" ||
           writer->op_type == "ConvTranspose";
  }

  const Int8ChoiceContext& context_;
  const Graph& graph_;
  const GraphIndex& index_;
  std::unordered_map<const Node*, const WeightSite*> sites_;
  std::unordered_set<const Node*> before_log_, lengths_, integers_;
  std::unordered_map<std::string, std::string> roots_;  // of pointwise results
  std::unordered_map<std::string, bool> wanted_;        // until roles change
  Int8Choice choice_;
};

}  // namespace

Int8Choice ChooseInt8(const Int8ChoiceContext& context) { return Chooser(context).Run(); }

bool KeepsRange(const Node& node) {
  return kMovingOps.contains(node.op_type) || node.op_type == "Resize" ||
         node.op_type == "GlobalMaxPool";
}

std::vector<std::string> QuantizedInputs(const Node& node, const Int8Choice& choice) {
  if (const auto site = choice.weights.find(&node); site != choice.weights.end()) {
    return {node.inputs[1 - site->second->input]};
  }
  if (kMovingOps.contains(node.op_type) || node.inputs.size() < 2 || node.op_type == "Resize") {
    return {node.inputs[0]};
  }
  return node.inputs;  // Add, Mul, Concat
}

Json ExcludedPlaces(const Int8ChoiceContext& context) {
  Json places = Json::array();
  const std::vector<Node>& nodes = context.model->graph.nodes;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (context.excluded.contains(&nodes[i])) places.push_back(i);
  }
  return places;
}

}  // namespace pared
