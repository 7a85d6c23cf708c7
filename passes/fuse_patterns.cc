// Functions that exporters spell with several operators, as the operator that ONNX has for them.
//
// Before:  d = x - ReduceMean(x)                                 After:  y = LayerNormalization(
//          y = d / Sqrt(ReduceMean(d * d) + e) * scale + bias                  x, scale, bias)
//          or x * (r * scale) + (bias - m * (r * scale)), as Keras has it
// Before:  y = x * (Erf(x / sqrt 2) + 1) / 2, or by Tanh         After:  y = Gelu(x)
// Before:  y = x * Clip(x + 3, 0, 6) / 6, or x * HardSigmoid(x)  After:  y = HardSwish(x)
// Before:  y = MatMul(Softmax(MatMul(q, k') * s + mask), v)      After:  y = Attention(
//                                                                        q, k, v, mask)
//
// The order of factors does not matter. HardSwish is of opset 14, LayerNormalization of 17, Gelu of
// 20, Attention of 23: the model is raised by converting its nodes where the options allow it;
// patterns whose opset is out of reach stay and are reported. Not recognized, and so not touched:
// what has another reader within the pattern, and what computes in other types than float32.

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "evaluator/float_patterns.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "passes/fuse_attention.h"
#include "passes/opset_raise.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

struct Options {
  int64_t opset_max = 17;
  // Not Attention: runtimes gain a few percent by it at most, and few know its opset.
  std::vector<std::string> op_types = {"LayerNormalization", "Gelu", "HardSwish"};
  std::vector<std::string> exclude;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Integer("opset_max", o.opset_max, {7, 23},
            "The model is raised up to this opset where an operator needs it: HardSwish 14, "
            "LayerNormalization 17, Gelu 20, Attention 23. Patterns that need a later one stay.");
  f.ChoiceList("op_types", o.op_types, {"LayerNormalization", "Gelu", "HardSwish", "Attention"},
               "Operators to recognize.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes to keep, with the pattern that they are part of; an entry that matches nothing "
             "is an error.");
}

// The opset that brought the operator; 0: it is none of ONNX's.
int64_t OpsetOf(const Node& node) {
  static const std::map<std::string, int64_t> kSince = {
      {"HardSwish", 14}, {"LayerNormalization", 17}, {"Gelu", 20}, {"Attention", kAttentionOpset}};
  const auto found = kSince.find(node.op_type);
  return found == kSince.end() ? 0 : found->second;
}

class Fuser {
 public:
  Fuser(Model& model, const Options& options, PassContext& context)
      : model_(model),
        options_(options),
        is_excluded_(SelectorOf(options.exclude)),
        context_(context) {}

  void Run() {
    Raise();
    FreshNames names(model_);
    ForEachPattern([&](Graph& graph, FloatPattern& pattern) {
      const bool is_excluded = IsExcluded(graph, pattern.last, pattern.node.inputs);
      if (!Admits(graph.nodes[pattern.last], pattern.node, is_excluded)) return;
      pattern.node.domain.clear();
      WritePattern(graph, std::move(pattern), names);
    });
    if (!Wants("Attention")) return;
    ForEachGraph([&](Graph& graph, const Types& types) {
      std::vector<AttentionPattern> written;
      for (AttentionPattern& pattern : FindAttention(graph, model_, types)) {
        const Node& last = graph.nodes[pattern.last];
        Node attention;
        attention.op_type = "Attention";
        if (!pattern.refusal.empty()) {
          Skip(NodeLabel(last), "Attention: " + pattern.refusal);
        } else if (Admits(last, attention, IsExcluded(graph, pattern))) {
          written.push_back(std::move(pattern));
        }
      }
      WriteAttention(graph, written, types, names);
    });
  }

 private:
  using Types = std::unordered_map<std::string, ValueType>;

  bool Wants(const std::string& op_type) const {
    return std::ranges::find(options_.op_types, op_type) != options_.op_types.end();
  }

  // Whether a node between `inputs`, the pattern's, and its last one is to stay.
  bool IsExcluded(const Graph& graph, size_t last, const std::vector<std::string>& inputs) const {
    if (options_.exclude.empty()) return false;
    const GraphIndex index(graph);
    std::set<std::string> seen(inputs.begin(), inputs.end());
    std::vector<const Node*> waiting = {&graph.nodes[last]};
    while (!waiting.empty()) {
      const Node& node = *waiting.back();
      waiting.pop_back();
      if (is_excluded_(node)) return true;
      for (const std::string& input : node.inputs) {
        const Node* producer = seen.insert(input).second ? index.producer(input) : nullptr;
        if (producer != nullptr) waiting.push_back(producer);
      }
    }
    return false;
  }
  bool IsExcluded(const Graph& graph, const AttentionPattern& pattern) const {
    return IsExcluded(graph, pattern.last,
                      {pattern.query, pattern.keys, pattern.values, pattern.mask});
  }

  // Whether `node` may take the place of `last`; the report says so or why not.
  bool Admits(const Node& last, const Node& node, bool is_excluded) {
    const std::string label = NodeLabel(last);
    const int64_t opset = model_.Opset("");
    if (is_excluded) {
      Skip(label, "excluded");
      return false;
    }
    if (OpsetOf(node) > opset) {
      Skip(label, node.op_type + " needs opset " + std::to_string(OpsetOf(node)) +
                      ", and the model has " + std::to_string(opset) +
                      (why_.empty() ? "; opset_max allows no later one" : ": " + why_));
      return false;
    }
    context_.report["changed"].push_back({{"node", label}, {"op_type", node.op_type}});
    return true;
  }

  // Calls `visit` for each graph; the types of values are known of the main graph only.
  void ForEachGraph(const std::function<void(Graph&, const Types&)>& visit) {
    const Types types = ShapesIfConsistent(model_);
    const Types none;
    bool is_main = true;
    EditGraphs(model_.graph, [&](Graph& graph) {
      visit(graph, std::exchange(is_main, false) ? types : none);
      EraseDead(graph);
    });
  }

  // Calls `visit` for each wanted pattern of all graphs, those of attention apart.
  void ForEachPattern(const std::function<void(Graph&, FloatPattern&)>& visit) {
    ForEachGraph([&](Graph& graph, const Types& types) {
      for (FloatPattern& pattern : FindFloatPatterns(graph, model_.ir_version, types)) {
        if (Wants(pattern.node.op_type) && OpsetOf(pattern.node) != 0) visit(graph, pattern);
      }
    });
  }

  // To the least opset that serves all patterns that opset_max admits.
  void Raise() {
    int64_t wanted = model_.Opset("");
    ForEachPattern([&](Graph& graph, FloatPattern& pattern) {
      const int64_t needed = OpsetOf(pattern.node);
      if (needed <= options_.opset_max && !IsExcluded(graph, pattern.last, pattern.node.inputs)) {
        wanted = std::max(wanted, needed);
      }
    });
    if (Wants("Attention") && kAttentionOpset <= options_.opset_max) {
      ForEachGraph([&](Graph& graph, const Types& types) {
        for (const AttentionPattern& pattern : FindAttention(graph, model_, types)) {
          const bool stays = !pattern.refusal.empty() || IsExcluded(graph, pattern);
          if (!stays) wanted = std::max(wanted, kAttentionOpset);
        }
      });
    }
    if (wanted == model_.Opset("")) return;
    Model raised = model_;
    try {
      context_.report["opset"] = RaiseOpset(raised, wanted);
    } catch (const Error& error) {
      why_ = error.where().empty() ? error.message() : error.where() + " " + error.message();
      return;
    }
    model_ = std::move(raised);
  }

  void Skip(const std::string& label, const std::string& reason) {
    context_.report["skipped"].push_back({{"node", label}, {"reason", reason}});
  }

  Model& model_;
  const Options& options_;
  const std::function<bool(const Node&)> is_excluded_;
  PassContext& context_;
  std::string why_;  // the model could not be raised
};

Model Fuse(Model model, const Options& options, PassContext& context) {
  SelectNodes(model, options.exclude, "exclude");
  context.report["changed"] = Json::array();
  context.report["skipped"] = Json::array();
  Fuser(model, options, context).Run();
  return model;
}

}  // namespace

extern const PassInfo kFusePatterns = DefinePass<Options, Fuse>(
    "fuse_patterns",
    "Writes LayerNormalization, Gelu, HardSwish and Attention for what spells them out.",
    [](const Json&) { return false; }, 5);

}  // namespace pared
