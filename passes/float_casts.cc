#include "passes/float_casts.h"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/half_floats.h"
#include "model/domain.h"
#include "model/infer_shapes.h"
#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/own_copy.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

bool IsView(const Node& node) {
  static const std::set<std::string> kViews = {"Cast",    "Flatten",   "Identity", "Reshape",
                                               "Squeeze", "Transpose", "Unsqueeze"};
  return IsDefaultDomain(node.domain) && kViews.contains(node.op_type) && !node.inputs.empty();
}

// Whether the Cast makes float32 or smaller floats of constants of another kind.
bool IsFloatCast(const Node& node) {
  if (node.op_type != "Cast" || !IsDefaultDomain(node.domain) || node.inputs.size() != 1)
    return false;
  const auto to = static_cast<DType>(node.Int("to", 0));
  return to == DType::kFloat32 || IsHalfFloat(to);
}

bool IsSource(DType from, const Node& cast, CastSources sources) {
  if (from == DType::kFloat32 || IsHalfFloat(from) || from == DType::kString) return false;
  const bool to_single = static_cast<DType>(cast.Int("to", 0)) == DType::kFloat32;
  const int bits = ElementBits(from);
  return bits >= 32 || (sources == CastSources::kAll && to_single && bits > 0);
}

// Graphs from the outermost to the one looked at.
struct Scope {
  Graph* graph = nullptr;
  GraphIndex index;
  const Scope* outer = nullptr;
};

// A Cast whose input is a constant, through `views`, the last of which is the Cast itself.
struct Found {
  const Scope* home = nullptr;  // of the constant
  std::string root;
  Tensor stored;
  std::vector<Node> views;
};

class Folder {
 public:
  Folder(Model& model, CastSources sources, const std::filesystem::path& spill)
      : model_(model), sources_(sources), spill_(spill), names_(model) {}

  FloatCasts Run() {
    Fold(model_.graph, nullptr);
    EditGraphs(model_.graph, EraseDead);
    return std::move(casts_);
  }

 private:
  void Fold(Graph& graph, const Scope* outer) {
    FoldHere({&graph, GraphIndex(graph), outer});
    const Scope around{&graph, GraphIndex(graph), outer};
    for (Node& node : graph.nodes) {
      EditSubgraphs(node, [&](Graph& inner) { Fold(inner, &around); });
    }
  }

  void FoldHere(const Scope& scope) {
    Graph& graph = *scope.graph;
    std::map<std::string, std::string> aliases;
    std::set<std::string> gone;
    for (const Node& node : graph.nodes) {
      if (!IsFloatCast(node) || IsAmong(graph.outputs, node.outputs[0])) continue;
      const std::optional<Found> found = Follow(scope, node);
      if (!found || !IsSource(found->stored.dtype(), node, sources_)) continue;
      const std::string name = Store(scope, *found);
      if (name.empty()) continue;
      casts_.folded.push_back({{"node", NodeLabel(node)}});
      gone.insert(node.outputs[0]);
      if (name != node.outputs[0]) aliases[node.outputs[0]] = name;
    }
    if (!gone.empty()) Remove(graph, gone, aliases);
  }

  static void Remove(Graph& graph, const std::set<std::string>& gone,
                     const std::map<std::string, std::string>& aliases) {
    std::erase_if(graph.nodes, [&](const Node& node) {
      return node.op_type == "Cast" && gone.contains(node.outputs[0]);
    });
    for (const auto& [alias, name] : aliases) ReplaceUses(graph, alias, name);
    graph.values.erase_if(
        [&](const std::string& name, const ValueInfo&) { return aliases.contains(name); });
  }

  // The constant that `value` is, and where.
  std::optional<Found> Constant(const Scope& scope, const std::string& value) const {
    for (const Scope* at = &scope; at != nullptr; at = at->outer) {
      const Tensor* tensor = ConstantOf(*at->graph, at->index, value, model_.ir_version);
      if (tensor != nullptr) return Found{at, value, *tensor, {}};
      if (IsAmong(at->graph->inputs, value) || at->index.producer(value) != nullptr) break;
    }
    return std::nullopt;
  }

  static const Node* MakerOf(const Scope& scope, const std::string& value) {
    for (const Scope* at = &scope; at != nullptr; at = at->outer) {
      if (const Node* maker = at->index.producer(value)) return maker;
      if (IsAmong(at->graph->inputs, value)) return nullptr;
    }
    return nullptr;
  }

  std::optional<Found> Follow(const Scope& scope, const Node& node) const {
    if (std::optional<Found> found = Constant(scope, node.inputs[0])) {
      found->views.push_back(node);
      return HasConstants(scope, node) ? found : std::nullopt;
    }
    const Node* maker = MakerOf(scope, node.inputs[0]);
    if (maker == nullptr || !IsView(*maker) || !HasConstants(scope, node)) return std::nullopt;
    std::optional<Found> found = Follow(scope, *maker);
    if (found) found->views.push_back(node);
    return found;
  }

  // Whether what says how to view is constant: a shape, axes.
  bool HasConstants(const Scope& scope, const Node& node) const {
    return std::all_of(node.inputs.begin() + 1, node.inputs.end(), [&](const std::string& input) {
      return input.empty() || Constant(scope, input).has_value();
    });
  }

  // Returns the name of the initializer that is what the Cast makes; empty: there is none.
  std::string Store(const Scope& scope, const Found& found) {
    const Node& cast = found.views.back();
    const bool is_direct = std::all_of(found.views.begin(), found.views.end() - 1,
                                       [](const Node& view) { return view.op_type == "Identity"; });
    const Key key{found.home->graph, found.root, cast.Int("to", 0)};
    if (is_direct && stored_.contains(key)) return stored_.at(key);
    const Model alone = Alone(scope, found);
    if (!ShapesIfConsistent(alone).contains(cast.outputs[0])) return "";
    const Tensor value = Executor(alone, {.fuse = false}).Run({})[0];
    found.stored.DropPages();
    const bool is_here = !is_direct || found.home->graph == scope.graph;
    Graph& home = is_here ? *scope.graph : *found.home->graph;
    const std::string name = is_here ? cast.outputs[0] : names_.Make(cast.outputs[0]);
    home.initializers.set(name, {Spilled(OwnCopy(value), spill_), ""});
    if (!is_direct) return name;
    if (found.home->outer == nullptr && ElementBits(found.stored.dtype()) < 32) {
      casts_.smaller.emplace(name, found.stored);
    }
    return stored_[key] = name;
  }

  // The constant and its views.
  Model Alone(const Scope& scope, const Found& found) const {
    Model alone;
    alone.ir_version = std::max<int64_t>(model_.ir_version, 4);
    alone.opsets = model_.opsets;
    alone.graph.name = "cast";
    alone.graph.nodes = found.views;
    alone.graph.outputs.emplace_back().name = found.views.back().outputs[0];
    alone.graph.initializers.set(found.root, {found.stored, ""});
    for (const Node& view : found.views) {
      for (size_t i = 1; i < view.inputs.size(); ++i) {
        if (view.inputs[i].empty()) continue;
        alone.graph.initializers.set(view.inputs[i], {Constant(scope, view.inputs[i])->stored, ""});
      }
    }
    return alone;
  }

  using Key = std::tuple<const Graph*, std::string, int64_t>;  // the constant, and its new type

  Model& model_;
  const CastSources sources_;
  const std::filesystem::path& spill_;
  FreshNames names_;
  std::map<Key, std::string> stored_;
  FloatCasts casts_;
};

}  // namespace

bool MayHaveFloatCasts(const Model& model) { return HasNode(model.graph, IsFloatCast); }

FloatCasts FoldFloatCasts(Model& model, CastSources sources, const std::filesystem::path& spill) {
  return MayHaveFloatCasts(model) ? Folder(model, sources, spill).Run() : FloatCasts();
}

}  // namespace pared
