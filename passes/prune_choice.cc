#include "passes/prune_choice.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <set>
#include <sstream>

#include "base/error.h"
#include "passes/decoded_distribution.h"
#include "passes/each_layer.h"
#include "passes/layer_progress.h"
#include "passes/log_power.h"
#include "passes/select_nodes.h"
#include "passes/select_smallest.h"
#include "passes/stored_weights.h"

namespace pared {

void Fields(FieldVisitor& f, LayerOverride& o) {
  f.Required();
  f.Text("match", o.match, TextRule::kNodeRef, "Node name, \"re:REGEX\" or \"op:OP_TYPE\".");
  f.Required();
  f.Number("sparsity", o.sparsity, {0, 0.99}, "Fraction of these weights set to zero.");
  PatternField(f, "pattern", o.pattern, "Where zeros stand in these weights.");
}

void PruneFields(FieldVisitor& f, PruneOptions& o) {
  f.Number("sparsity", o.sparsity, {0, 0.99},
           "Fraction of the weights set to zero. N:M patterns zero what they say instead.");
  f.Choice(
      "scope", o.scope, {"layer", "model", "sensitivity"},
      "Rank weights within each layer, or over all layers of the model; or give each layer the "
      "sparsity that the model's outputs, measured on the calibration data, bear best.");
  f.Choice(
      "budget", o.budget, {"weights", "macs", "latency"},
      "Under scope \"sensitivity\": what \"sparsity\" is the saved fraction of, over all layers "
      "together. latency: as the cost model of the INT8 kernels predicts it.");
  PatternField(f, "pattern", o.pattern,
               "Where zeros stand: anywhere, in blocks of ROWSxCOLUMNS (output channels by "
               "consecutive inputs) kept or zeroed as one, or N:M, which keeps N of each M.");
  f.List("overrides", o.overrides, 4096,
         "Other values for some nodes; the last that matches holds. Under the scopes \"model\" and "
         "\"sensitivity\" these nodes stand by themselves.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that keep all their weights; an entry that matches nothing is an error.");
  f.Number(
      "keep_min", o.keep_min, {0, 1},
      "Under the scopes \"model\" and \"sensitivity\", each layer keeps at least this fraction of "
      "its weights.");
  f.Flag("ends", o.ends, "Under scope \"model\", prune the first and the last layer too.");
  f.Flag("depthwise", o.depthwise,
         "Prune depthwise convolutions too: they are small, and losing their weights costs most.");
  f.Flag("freeze_inputs", o.freeze_inputs,
         "Take weights that are also graph inputs, and so could be overridden by a caller, as "
         "constants, and drop these inputs.");
}

namespace {

// A weight to be pruned.
struct Layer {
  const WeightSite* site = nullptr;
  double sparsity = 0;
  PatternName pattern = PatternName::kUnstructured;
  bool is_overridden = false;
  std::vector<float> importance;  // for PruneUnits
};

class Chooser {
 public:
  Chooser(const Model& model, const WeightScan& scan, const PruneOptions& options,
          PassContext& context)
      : model_(model),
        scan_(scan),
        tables_(FindTables(model)),
        options_(options),
        context_(context) {
    context_.report["skipped"] = Json::array();
  }

  std::vector<LayerChoice> Run() {
    for (const SkippedNode& node : scan_.skipped) Skip(*node.node, node.reason);
    std::vector<Layer> layers = ChooseLayers();
    if (ChoosesByData(options_)) LookAtData(layers);
    std::vector<Layer> ranked_alone, ranked_together;
    for (Layer& layer : layers) {
      const bool together = options_.scope == PruneScope::kModel && !layer.is_overridden &&
                            PatternOf(layer.pattern).of == 0;
      (together ? ranked_together : ranked_alone).push_back(std::move(layer));
    }
    PruneAlone(ranked_alone);
    if (!ranked_together.empty()) PruneTogether(ranked_together);
    std::ranges::sort(choices_, {}, [](const LayerChoice& choice) { return choice.site; });
    return std::move(choices_);
  }

 private:
  void Skip(const Node& node, const std::string& reason) {
    context_.report["skipped"].push_back({{"node", NodeLabel(node)}, {"reason", reason}});
  }

  // Weights of the nodes that are to be pruned; a shared weight once.
  std::vector<Layer> ChooseLayers() {
    const auto excluded = SelectNodes(model_, options_.exclude, "exclude");
    std::map<ConstantRef, const Node*> kept;  // by a reader that is excluded or depthwise
    for (const WeightSite& site : scan_.sites) {
      if (excluded.contains(site.node)) kept.emplace(site.root, site.node);
    }
    std::map<ConstantRef, const Node*> seen;
    std::vector<Layer> layers;
    const auto overrides = SelectOverrides();
    const auto before_log = BeforeLogPower();
    std::map<const Graph*, GraphIndex> indices;
    for (const WeightSite& site : scan_.sites) {
      Layer layer = ChooseLayer(site, overrides);
      std::string reason = WhyKept(site, excluded, kept);
      if (reason.empty() && !layer.is_overridden) {
        const GraphIndex& index = indices.try_emplace(site.graph, *site.graph).first->second;
        reason = WhyUnasked(site, before_log, index);
      }
      if (!reason.empty()) {
        Skip(*site.node, reason);
        continue;
      }
      const auto [first, is_new] = seen.emplace(site.root, site.node);
      if (!is_new) {
        Skip(*site.node, "shares its weight with " + NodeLabel(*first->second));
        continue;
      }
      CheckFinite(site.stored, site.root.second);
      site.stored.DropPages();
      layers.push_back(std::move(layer));
    }
    return layers;
  }

  // Where the whole model is one, nothing would be left.
  std::unordered_set<const Node*> BeforeLogPower() const {
    std::unordered_set<const Node*> found = NodesBeforeLogPower(model_);
    const auto is_found = [&](const WeightSite& site) { return found.contains(site.node); };
    return std::ranges::all_of(scan_.sites, is_found) ? std::unordered_set<const Node*>() : found;
  }

  // Why the layer keeps its weights where no override names it; empty: it need not.
  static std::string WhyUnasked(const WeightSite& site,
                                const std::unordered_set<const Node*>& before_log,
                                const GraphIndex& index) {
    if (before_log.contains(site.node)) {
      return "what it makes becomes a power whose logarithm is taken, which small errors move by "
             "decibels; an entry of \"overrides\" prunes it";
    }
    if (!IsDistribution(index, site.node->inputs[site.input == 0 ? 1 : 0])) return "";
    return std::string(kDecodesDistribution) + "; an entry of \"overrides\" prunes its weight";
  }

  std::vector<std::unordered_set<const Node*>> SelectOverrides() const {
    std::vector<std::unordered_set<const Node*>> selected;
    for (size_t i = 0; i < options_.overrides.size(); ++i) {
      selected.push_back(SelectNodes(model_, {options_.overrides[i].match},
                                     "overrides/" + std::to_string(i) + "/match"));
    }
    return selected;
  }

  Layer ChooseLayer(const WeightSite& site,
                    const std::vector<std::unordered_set<const Node*>>& overrides) const {
    Layer layer{&site, options_.sparsity, options_.pattern, false, {}};
    for (size_t i = 0; i < overrides.size(); ++i) {
      if (!overrides[i].contains(site.node)) continue;
      layer = {&site, options_.overrides[i].sparsity, options_.overrides[i].pattern, true, {}};
    }
    return layer;
  }

  std::string WhyKept(const WeightSite& site, const std::unordered_set<const Node*>& excluded,
                      const std::map<ConstantRef, const Node*>& kept) const {
    if (excluded.contains(site.node)) return "excluded";
    if (const auto other = kept.find(site.root); other != kept.end()) {
      return "shares its weight with " + NodeLabel(*other->second) + ", which is excluded";
    }
    if (site.stored.count() == 0) return "its weight has no elements";
    if (tables_.contains(site.root)) return "its weight is also a table that Gather looks up";
    if (!options_.depthwise && IsDepthwise(site)) return "depthwise, and \"depthwise\" is not set";
    const bool is_end =
        site.node == scan_.sites.front().node || site.node == scan_.sites.back().node;
    if (options_.scope == PruneScope::kModel && !options_.ends && is_end) {
      return "first or last layer, and \"ends\" is not set";
    }
    return "";
  }

  // Importance by inputs, and the sparsity of each layer.
  void LookAtData(std::vector<Layer>& layers) {
    if (context_.calibration == nullptr) {
      throw Error(ErrorCode::kInvalidArgument,
                  "scope \"sensitivity\" and importance \"wanda\" need calibration data",
                  "calibration");
    }
    const LossRequest request{.importance = options_.importance,
                              .with_points = options_.scope == PruneScope::kSensitivity,
                              .is_fitted = options_.is_fitted,
                              .budget = options_.budget,
                              .sparsity_max = 1 - options_.keep_min};
    std::vector<LayerLoss> losses;
    for (const Layer& layer : layers) {
      LayerLoss& loss = losses.emplace_back();
      loss.site = layer.site;
      loss.pattern = PatternOf(layer.pattern);
    }
    MeasureLosses(model_, request, context_, losses);
    for (size_t i = 0; i < layers.size(); ++i) {
      layers[i].importance = losses[i].importance;
      if (losses[i].why_not.empty()) continue;
      layers[i].is_overridden =
          true;  // its magnitudes cannot be ranked with the others' importance
      context_.report["chosen_by_magnitude"].push_back(
          {{"node", NodeLabel(*layers[i].site->node)}, {"reason", losses[i].why_not}});
    }
    if (request.with_points) Allocate(losses, layers);
  }

  void Allocate(const std::vector<LayerLoss>& losses, std::vector<Layer>& layers) {
    std::vector<std::vector<SparsityPoint>> points(layers.size());
    double size = 0, fixed = 0, saved = 0;  // of N:M, which saves what it says
    for (size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].is_overridden) continue;
      const Pattern& pattern = losses[i].pattern;
      if (pattern.of != 0) {
        fixed += losses[i].size;
        saved += losses[i].size * static_cast<double>(pattern.of - pattern.keep) /
                 static_cast<double>(pattern.of);
        continue;
      }
      points[i] = losses[i].points;
      size += losses[i].size;
    }
    const Allocation allocation = AllocateSparsity(points, options_.sparsity * size);
    size += fixed;
    saved += allocation.saved;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (!points[i].empty()) layers[i].sparsity = allocation.sparsities[i];
    }
    const double share = size > 0 ? saved / size : 0.0;
    context_.report["budget"] = {{"wanted", options_.sparsity}, {"saved", share}};
    if (size > 0) WarnOfLess(share, fixed > 0 ? "the N:M pattern says how much" : kKeepMin);
  }

  static constexpr const char* kKeepMin = "\"keep_min\" of each layer stays";

  void WarnOfLess(double reached, const std::string& reason) {
    constexpr double kNoticeable = 0.005;
    if (reached > options_.sparsity - kNoticeable) return;
    std::ostringstream text;
    text << "sparsity " << options_.sparsity << " was asked for and " << std::setprecision(3)
         << reached << " reached: " << reason;
    context_.report["warnings"].push_back(text.str());
  }

  void PruneAlone(const std::vector<Layer>& layers) {
    std::vector<std::vector<bool>> zeros(layers.size());
    const auto choose = [&](size_t i) {
      const Layer& layer = layers[i];
      const Pattern pattern = PatternOf(layer.pattern);
      zeros[i] = pattern.of != 0
                     ? ZeroesOfGroups(*layer.site, pattern, layer.importance)
                     : LeastUnits(*layer.site, pattern, layer.importance, layer.sparsity);
    };
    ForEachLayer(layers.size(), SpillFolder(model_, context_.scratch), choose,
                 [&](size_t i) { Apply(layers[i], std::move(zeros[i])); });
  }

  // One threshold over all layers. A layer that would fall below keep_min is cut to just that, by
  // itself, and what it could not give is asked of the others.
  void PruneTogether(const std::vector<Layer>& layers) {
    std::vector<PruneUnits> units;
    double all = 0, most = 0;
    for (const Layer& layer : layers) {
      units.emplace_back(*layer.site, PatternOf(layer.pattern), layer.importance);
      all += static_cast<double>(units.back().scores().size());
      most += static_cast<double>(CountMax(units.back()));
    }
    const double wanted = options_.sparsity * all;
    if (all > 0) WarnOfLess(std::min(wanted, most) / all, kKeepMin);
    std::vector<bool> at_floor(layers.size(), false);
    Threshold threshold = FindCommonThreshold(units, std::llround(wanted), at_floor);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (at_floor[i]) {
        Threshold own = SelectSmallest({units[i].scores()}, CountMax(units[i]));
        Apply(layers[i], units[i].Below(own.magnitude, own.ties));
      } else {
        Apply(layers[i], units[i].Below(threshold.magnitude, threshold.ties));
      }
    }
  }

  int64_t CountMax(const PruneUnits& units) const {
    const int64_t size = std::ssize(units.scores());
    const double most = std::floor((1 - options_.keep_min) * static_cast<double>(size));
    return std::clamp<int64_t>(static_cast<int64_t>(most), 0, std::max<int64_t>(0, size - 1));
  }

  Threshold FindCommonThreshold(const std::vector<PruneUnits>& units, int64_t wanted,
                                std::vector<bool>& at_floor) const {
    while (true) {
      std::vector<std::span<const float>> lists;
      std::vector<const PruneUnits*> listed;
      int64_t left = wanted, free = 0;
      for (size_t i = 0; i < units.size(); ++i) {
        if (at_floor[i]) {
          left -= CountMax(units[i]);
        } else {
          lists.push_back(units[i].scores());
          listed.push_back(&units[i]);
          free += std::ssize(units[i].scores());
        }
      }
      const Threshold threshold = SelectSmallest(lists, std::clamp<int64_t>(left, 0, free),
                                                 [&](size_t list) { listed[list]->DropPages(); });
      bool is_settled = true;
      int64_t ties = threshold.ties;
      for (size_t i = 0; i < units.size(); ++i) {
        if (at_floor[i] || CountBelow(units[i], threshold.magnitude, ties) <= CountMax(units[i])) {
          continue;
        }
        at_floor[i] = true;
        is_settled = false;
      }
      if (is_settled) return threshold;
    }
  }

  static int64_t CountBelow(const PruneUnits& units, float magnitude, int64_t& ties) {
    int64_t below = 0, equal = 0;
    for (const float score : units.scores()) {
      below += static_cast<int64_t>(std::fabs(score) < magnitude);
      equal += static_cast<int64_t>(std::fabs(score) == magnitude);
    }
    units.DropPages();
    const int64_t taken = std::min(equal, ties);
    ties -= taken;
    return below + taken;
  }

  void Apply(const Layer& layer, std::vector<bool> zero) {
    if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while pruning");
    TellLayer(context_, NodeLabel(*layer.site->node), choices_.size() + 1, scan_.sites.size());
    choices_.push_back({layer.site, layer.pattern, std::move(zero)});
    layer.site->stored.DropPages();
  }

  const Model& model_;
  const WeightScan& scan_;
  const std::map<ConstantRef, Tensor> tables_;
  const PruneOptions& options_;
  PassContext& context_;
  std::vector<LayerChoice> choices_;
};

}  // namespace

bool ChoosesByData(const PruneOptions& options) {
  return options.scope == PruneScope::kSensitivity || options.importance == Importance::kWanda;
}

std::vector<LayerChoice> ChooseZeros(const Model& model, const WeightScan& scan,
                                     const PruneOptions& options, PassContext& context) {
  return Chooser(model, scan, options, context).Run();
}

}  // namespace pared
