// Computes what does not depend on the model's inputs, once and for all.
//
// Before:  t = Transpose(w)  y = MatMul(x, t)                            After:  y = MatMul(x, t)
//          with the initializer w                                        with the initializer t
// Before:  s = Shape(x)  c = Gather(s, 1)  r = Concat(-1, c)  y = Reshape(x, r)
// After:   y = Reshape(x, r)  with the initializer r, where dimension 1 of x is a number
//
// Before:  y = MatMul(x, w)  with the sparse initializer w                After:  w is stored whole
// Before:  y = If(c) { p = MatMul(x, w) } else { q = Neg(x) }  with c true
// After:   y = MatMul(x, w)
//
// Values keep their names. One that is an output of its graph becomes a Constant node. Declines
// where the results take more room than what they are computed from and than the limit allows;
// what reads the inputs of such a node is then looked at instead. Random operators stay, and so
// does what expands stored weights (DequantizeLinear, casts from 16 bits and fewer).

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "base/error.h"
#include "evaluator/executor.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "model/shape_values.h"
#include "passes/branch_inliner.h"
#include "passes/constant_node.h"
#include "passes/fixed_weights.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"

namespace pared {
namespace {

constexpr int32_t kTensorType = 4;  // AttributeProto.AttributeType

struct Options {
  int64_t growth_max_bytes = 65536;
  std::vector<std::string> exclude;
  bool freeze_inputs = false;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Integer("growth_max_bytes", o.growth_max_bytes, {0, int64_t{1} << 40},
            "All folds together may make the constants this much larger; what would take more "
            "stays and is reported. Folds that shrink the model are always done.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes to keep; an entry that matches nothing is an error.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

int64_t BytesOf(const Tensor& tensor) {
  return tensor.dtype() == DType::kString ? 0 : static_cast<int64_t>(tensor.bytes().size());
}

// One graph: which of its nodes are constant, and which of them are worth storing.
class Folder {
 public:
  Folder(const Model& model, Graph& graph, const ConstantValues& shape_values, PassContext& context)
      : model_(model), graph_(graph), shape_values_(shape_values), context_(context) {}

  // `known`: constants of the graphs around; gets those of this one.
  void Compute(ConstantValues& known, const std::unordered_set<const Node*>& excluded) {
    for (const ValueInfo& input : graph_.inputs) known.erase(input.name);
    for (const auto& [name, initializer] : graph_.initializers) {
      if (!IsAmong(graph_.inputs, name)) {
        known[name] = initializer.tensor;  // nobody may override it
      }
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while folding");
      Visit(i, known, excluded.contains(&graph_.nodes[i]));
    }
    values_ = known;
  }

  // Chooses among the constant nodes. `growth` is what folds have added so far.
  void Choose(int64_t growth_max, int64_t& growth) {
    const GraphIndex index(graph_);
    index_ = &index;
    // The cheapest first, so that one large result does not keep many small ones out.
    std::set<std::pair<int64_t, size_t>> waiting;
    for (const size_t i : candidates_) {
      if (IsNeeded(i)) waiting.emplace(GrowthOf(i), i);
    }
    while (!waiting.empty()) {
      const size_t i = waiting.begin()->second;
      waiting.erase(waiting.begin());
      const int64_t added = GrowthOf(i);  // less than before where others shared its inputs
      if (added <= 0 || growth + added <= growth_max) {
        growth += added;
        folded_.insert(i);
        continue;
      }
      const std::vector<size_t> inputs = InputCandidates(i);
      Leave(i, "its result would add " + std::to_string(added) +
                   " bytes, and growth_max_bytes leaves " +
                   std::to_string(std::max<int64_t>(growth_max - growth, 0)));
      for (const size_t input : inputs) {
        if (!folded_.contains(input)) waiting.emplace(GrowthOf(input), input);
      }
    }
    index_ = nullptr;
  }

  // Puts results in the place of nodes.
  void Apply(FreshNames& names) {
    std::set<std::string> outputs;
    for (const ValueInfo& output : graph_.outputs) outputs.insert(output.name);
    std::vector<Node> nodes;
    std::map<std::string, Json> entries;  // of the candidates, by output
    for (const size_t i : candidates_) {
      const Node& node = graph_.nodes[i];
      Json& entry = entries[FirstOutput(node)];
      entry["node"] = NodeLabel(node);
      const std::string made = MadeNotFinite(node, values_);
      if (!made.empty()) entry["not_finite"] = made;
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      Node& node = graph_.nodes[i];
      if (!folded_.contains(i)) {
        nodes.push_back(std::move(node));
        continue;
      }
      for (const std::string& output : node.outputs) {
        if (output.empty()) continue;
        const Tensor& tensor = values_.at(output);
        if (!outputs.contains(output)) {
          graph_.initializers.set(output, {tensor, ""});
          continue;
        }
        Node constant = MakeNode("Constant", {}, output, names);
        constant.attributes.set("value", {kTensorType, tensor, "", ""});
        nodes.push_back(std::move(constant));
      }
    }
    graph_.nodes = std::move(nodes);
    EraseDead(graph_);
    for (const Node& node : graph_.nodes) {
      if (node.op_type != "Constant") entries.erase(FirstOutput(node));
    }
    for (const auto& [output, entry] : entries) {
      context_.report["changed"].push_back(entry);
      if (!entry.contains("not_finite")) continue;
      context_.report["warnings"].push_back(entry.at("node").get<std::string>() + " makes " +
                                            entry.at("not_finite").get<std::string>() +
                                            " of finite numbers, and is stored so");
    }
  }

  const ConstantValues& values() const { return values_; }

 private:
  static std::string FirstOutput(const Node& node) {
    for (const std::string& output : node.outputs) {
      if (!output.empty()) return output;
    }
    return "";
  }

  void Skip(size_t i, const std::string& reason) {
    context_.report["skipped"].push_back(
        {{"node", NodeLabel(graph_.nodes[i])}, {"reason", reason}});
  }

  void Leave(size_t i, const std::string& reason) {
    candidates_.erase(i);
    Skip(i, reason);
  }

  void Visit(size_t i, ConstantValues& known, bool is_excluded) {
    const Node& node = graph_.nodes[i];
    const bool is_constant = node.op_type == "Constant" && node.domain.empty();
    if (is_constant && node.attributes.contains("value")) {
      known[node.outputs[0]] = *node.TensorOf("value");
      return;
    }
    const auto shape =
        node.outputs.size() == 1 ? shape_values_.find(node.outputs[0]) : shape_values_.end();
    const bool from_shape = shape != shape_values_.end() && !is_constant;
    bool is_fixed = from_shape || is_constant || !node.inputs.empty();
    for (const std::string& input : node.inputs) {
      is_fixed = is_fixed && (from_shape || input.empty() || known.contains(input));
    }
    if (!is_fixed) return;
    if (is_excluded) return Skip(i, "excluded");
    if (IsIf(node)) return;  // a branch of it takes its place
    if (from_shape) {
      known[node.outputs[0]] = shape->second;
    } else if (std::string reason = Evaluate(model_, node, known); !reason.empty()) {
      if (!is_constant) Skip(i, reason);
      return;
    }
    if (!is_constant) candidates_.insert(i);
  }

  // Whether something that stays reads one of the node's results.
  bool IsNeeded(size_t i) const { return !IsUnread(i, {}); }

  // Whether all readers of the node's results are folded, or in `gone`.
  bool IsUnread(size_t i, const std::set<const Node*>& gone) const {
    return std::ranges::all_of(graph_.nodes[i].outputs, [&](const std::string& output) {
      return output.empty() || IsUnread(output, gone);
    });
  }
  bool IsUnread(const std::string& value, const std::set<const Node*>& gone) const {
    if (index_->is_output(value)) return false;
    return std::ranges::all_of(index_->consumers(value), [&](const Node* reader) {
      const size_t at = IndexOf(reader);
      return gone.contains(reader) || folded_.contains(at) ||
             (gone.empty() && candidates_.contains(at));
    });
  }

  size_t IndexOf(const Node* node) const { return static_cast<size_t>(node - graph_.nodes.data()); }

  std::vector<size_t> InputCandidates(size_t i) const {
    std::vector<size_t> found;
    for (const std::string& input : graph_.nodes[i].inputs) {
      const Node* maker = input.empty() ? nullptr : index_->producer(input);
      if (maker != nullptr && candidates_.contains(IndexOf(maker))) {
        found.push_back(IndexOf(maker));
      }
    }
    return found;
  }

  // Bytes of the node's results, less those of the constants that nothing reads when it is gone.
  int64_t GrowthOf(size_t i) const {
    std::set<size_t, std::greater<>> cone = {i};  // the last first: readers before what they read
    std::set<const Node*> gone = {&graph_.nodes[i]};
    std::set<std::string> leaves;
    while (!cone.empty()) {
      const size_t at = *cone.begin();
      cone.erase(cone.begin());
      const Node& node = graph_.nodes[at];
      if (at != i && !IsUnread(at, gone)) continue;
      gone.insert(&node);
      leaves.insert(node.inputs.begin(), node.inputs.end());
      for (const size_t input : InputCandidates(at)) {
        if (!folded_.contains(input)) cone.insert(input);
      }
    }
    int64_t growth = 0;
    for (const std::string& output : graph_.nodes[i].outputs) {
      if (!output.empty()) growth += BytesOf(values_.at(output));
    }
    for (const std::string& leaf : leaves) {
      const Tensor* tensor = StoredHere(leaf);
      if (tensor != nullptr && IsUnread(leaf, gone)) growth -= BytesOf(*tensor);
    }
    return growth;
  }

  // The constant of this graph that `value` is; one of a folded node counts too.
  const Tensor* StoredHere(const std::string& value) const {
    if (value.empty()) return nullptr;
    const auto found = values_.find(value);
    if (found == values_.end()) return nullptr;
    if (graph_.initializers.contains(value)) return &found->second;
    const Node* maker = index_->producer(value);
    if (maker == nullptr) return nullptr;
    const bool is_stored = maker->op_type == "Constant" || folded_.contains(IndexOf(maker));
    return is_stored ? &found->second : nullptr;
  }

  const Model& model_;
  Graph& graph_;
  const ConstantValues& shape_values_;
  PassContext& context_;
  const GraphIndex* index_ = nullptr;
  ConstantValues values_;
  std::set<size_t> candidates_, folded_;  // indices of nodes
};

enum class Sparse { kKeep, kExpand };
enum class Branches { kKeep, kInline };

struct Folding {
  const Model& model;
  const Options& options;
  const std::function<bool(const Node&)> is_excluded;
  PassContext& context;
  BranchInliner& inliner;
  Sparse sparse;
  Branches branches;
  int64_t growth_bytes = 0;
};

// Why a sparse initializer stays so; empty: it is stored whole now.
std::string WhySparse(Folding& folding, Graph& graph, const std::string& name) {
  if (IsAmong(graph.inputs, name)) return "it is a default that a caller may override";
  const SparseTensor& sparse = graph.sparse_initializers.at(name);
  Model alone = Alone(folding.model, {}, {});
  alone.graph.nodes.clear();
  alone.graph.sparse_initializers.set(name, sparse);
  alone.graph.outputs.emplace_back().name = name;
  const std::optional<int64_t> bytes = ResultBytes(alone);
  if (!bytes || *bytes > kEvaluatedBytesMax) return "whole it would be too large to compute with";
  const int64_t added = *bytes - BytesOf(sparse.values) - BytesOf(sparse.indices);
  const int64_t left =
      std::max<int64_t>(folding.options.growth_max_bytes - folding.growth_bytes, 0);
  if (added > left) {
    return "whole it would add " + std::to_string(added) + " bytes, and growth_max_bytes leaves " +
           std::to_string(left);
  }
  try {
    graph.initializers.set(name, {Executor(alone, {.fuse = false}).Run({})[0], ""});
  } catch (const Error& e) {
    return e.what();  // it may stand where it is never read
  }
  folding.growth_bytes += added;
  return "";
}

void ExpandSparse(Folding& folding, Graph& graph) {
  std::set<std::string> expanded;
  for (const auto& [name, sparse] : graph.sparse_initializers) {
    const std::string reason = WhySparse(folding, graph, name);
    Json entry = {{"weight", name}};
    if (reason.empty()) {
      expanded.insert(name);
    } else {
      entry["reason"] = reason;
    }
    folding.context.report[reason.empty() ? "changed" : "skipped"].push_back(std::move(entry));
  }
  graph.sparse_initializers.erase_if(
      [&](const std::string& name, const SparseTensor&) { return expanded.contains(name); });
}

// Why the branch that its condition, `known`, decides does not take the place of the If; empty: it
// can.
std::string WhyNoBranch(const Folding& folding, const Node& node, const Tensor& known) {
  if (folding.branches == Branches::kKeep) {
    return "its branch contradicts the shapes that the model states";
  }
  if (known.dtype() != DType::kBool || known.count() != 1) return "its condition is no single bool";
  for (const bool taken : {true, false}) {
    const GraphPtr branch = BranchOf(node, taken);
    if (branch == nullptr || branch->outputs.size() < node.outputs.size()) {
      return "it has no branch for its condition";
    }
    if (taken != known.data<bool>()[0] && HasNode(*branch, folding.is_excluded)) {
      return "its other branch holds an excluded node";
    }
  }
  return "";
}

// Puts branches that are known to be taken in the place of their Ifs.
void InlineBranches(Folding& folding, Graph& graph, const ConstantValues& known) {
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    const auto condition = IsIf(node) ? known.find(node.inputs[0]) : known.end();
    if (condition == known.end() || folding.is_excluded(node)) continue;
    Json entry = {{"node", NodeLabel(node)}};
    const std::string reason = WhyNoBranch(folding, node, condition->second);
    if (!reason.empty()) {
      entry["reason"] = reason;
      folding.context.report["skipped"].push_back(std::move(entry));
      continue;
    }
    const bool taken = condition->second.data<bool>()[0];
    entry["branch"] = taken ? "then_branch" : "else_branch";
    folding.context.report["changed"].push_back(std::move(entry));
    i += folding.inliner.Inline(graph, i, taken);
    --i;  // what was put there is looked at when its constants are known
  }
}

void FoldGraph(Folding& folding, Graph& graph, const ConstantValues& shape_values,
               ConstantValues known) {
  std::unordered_set<const Node*> excluded;
  for (const Node& node : graph.nodes) {
    if (folding.is_excluded(node)) excluded.insert(&node);
  }
  if (folding.sparse == Sparse::kExpand) ExpandSparse(folding, graph);
  Folder folder(folding.model, graph, shape_values, folding.context);
  folder.Compute(known, excluded);
  folder.Choose(folding.options.growth_max_bytes, folding.growth_bytes);
  folder.Apply(folding.inliner.names());
  InlineBranches(folding, graph, folder.values());
  for (Node& node : graph.nodes) {
    EditSubgraphs(node, [&](Graph& inner) { FoldGraph(folding, inner, {}, folder.values()); });
  }
  EraseDead(graph);  // what only subgraphs read, and no longer do
}

// What shapes tell without the values that a caller may override.
ConstantValues FixedShapeValues(const Model& model) {
  Model fixed = model;
  for (const ValueInfo& input : fixed.graph.inputs) {
    fixed.graph.initializers.erase_if(
        [&](const std::string& name, const Initializer&) { return name == input.name; });
  }
  return InferShapeValues(fixed);
}

// Folds until nothing is left: what was computed may tell more shapes. What is skipped in the end
// is skipped.
Model FoldAll(const Model& model, const Options& options, Branches branches, PassContext& context) {
  context.report["changed"] = Json::array();
  context.report["warnings"] = Json::array();
  BranchInliner inliner(model);
  // Of the model, nodes are computed with its opsets; its graph is what is edited.
  Model out = model;
  Folding folding{model,           options, SelectorOf(options.exclude), context, inliner,
                  Sparse::kExpand, branches};
  for (size_t folded = 0, before = 1; folded != before;) {
    before = folded;
    context.report["skipped"] = Json::array();
    FoldGraph(folding, out.graph, FixedShapeValues(out), {});
    folded = context.report["changed"].size();
  }
  context.report["growth_bytes"] = folding.growth_bytes;
  if (context.report["warnings"].empty()) context.report.erase("warnings");
  return out;
}

// Whether what nodes make contradicts what the model says of its values and outputs.
bool IsContradictory(const Model& model) {
  Model open = model;
  for (ValueInfo& output : open.graph.outputs) output.shape = std::nullopt;
  const auto types = ShapesIfConsistent(open);
  return types.empty() || std::ranges::any_of(model.graph.outputs, [&](const ValueInfo& output) {
           const auto made = types.find(output.name);
           if (!output.shape || made == types.end() || !made->second.shape) return false;
           return !std::ranges::equal(*output.shape, *made->second.shape,
                                      [](const Dim& a, const Dim& b) {
                                        return a.value < 0 || b.value < 0 || a.value == b.value;
                                      });
         });
}

Model Fold(Model model, const Options& options, PassContext& context) {
  SelectNodes(model, options.exclude, "exclude");
  if (options.freeze_inputs || model.ir_version < 4) DropInitializerInputs(model);
  Model out = FoldAll(model, options, Branches::kInline, context);
  const bool is_wrong =
      HasNode(model.graph, IsIf) && IsContradictory(out) && !IsContradictory(model);
  return is_wrong ? FoldAll(model, options, Branches::kKeep, context) : out;
}

}  // namespace

FixedWeightsReport FoldFixedWeights(Model& model, const std::set<std::string>& found,
                                    const std::function<bool()>& cancelled) {
  PassContext context;
  context.cancelled = cancelled;
  context.report = {{"changed", Json::array()}, {"warnings", Json::array()}};
  BranchInliner inliner(model);
  const Options options;
  Model out = model;
  const auto is_excluded = [&](const Node& node) {
    return node.outputs.empty() || !found.contains(node.outputs[0]);
  };
  Folding folding{model, options, is_excluded, context, inliner, Sparse::kKeep, Branches::kKeep};
  FoldGraph(folding, out.graph, {}, {});
  model = std::move(out);
  return {context.report.at("changed"), context.report.at("warnings")};
}

extern const PassInfo kFoldConstants = DefinePass<Options, Fold>(
    "fold_constants", "Computes what does not depend on the inputs, once and for all.",
    [](const Json&) { return false; }, 4);

}  // namespace pared
