// Removes whole channels: the layers before and behind them get smaller.
//
// Before:  a = Relu(Conv(x, w1[64,..]))  y = Conv(a, w2[..,64,..])
// After:   a = Relu(Conv(x, w1[32,..]))  y = Conv(a, w2[..,32,..])
//
// Channels that residual connections, Concat, grouped convolutions and the like tie together go
// together (channel_groups.h). Those that cannot be followed to where they are read stay, and the
// report names the reason. Of the layers whose channels are tied to one another the same fraction
// goes, those of least importance first.
//
// Where calibration data is given, the layers that read removed channels are fitted to their
// original outputs with what is left, as after other pruning (prune_layers.h).

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "base/error.h"
#include "model/infer_shapes.h"
#include "passes/calibrate.h"
#include "passes/channel_shrink.h"
#include "passes/channel_strength.h"
#include "passes/constant_aliases.h"
#include "passes/finite_weights.h"
#include "passes/float_elements.h"
#include "passes/layer_progress.h"
#include "passes/layer_stream.h"
#include "passes/left_out.h"
#include "passes/node_history.h"
#include "passes/prune_layers.h"
#include "passes/select_nodes.h"
#include "passes/widen_halves.h"

namespace pared {
namespace {

enum class Importance { kAuto, kActivation, kL2, kL1 };

constexpr int64_t kImportanceSamplesMax = 32;

struct Options {
  double sparsity = 0.5;
  Importance importance = Importance::kAuto;
  int64_t multiple_of = 8;
  double keep_min = 0.1;
  std::vector<std::string> exclude;
  PruneMethod method;
};

void Fields(FieldVisitor& f, Options& o) {
  f.Number("sparsity", o.sparsity, {0, 0.99}, "Fraction of the channels that is removed.");
  f.Choice("importance", o.importance, {"auto", "activation", "l2", "l1"},
           "Rank channels by what their variance on the calibration data makes of the outputs of "
           "the layers that read them, or by the norm of the weights that make them times the norm "
           "of those that read them. auto: by the first where there is calibration data.");
  f.Integer("multiple_of", o.multiple_of, {1, 256},
            "The channels that stay are a multiple of this, rounded up: kernels work on whole "
            "registers.");
  f.Number("keep_min", o.keep_min, {0, 1}, "Each layer keeps at least this fraction.");
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that keep their weights; an entry that matches nothing is an error.");
  f.Choice("reconstruct", o.method.rebuild, {"auto", "on", "bias", "off"},
           "Fit the layers that read removed channels to their original outputs by least squares "
           "on the calibration data: where there is any, or always; or only fit their biases; or "
           "nothing.");
  RebuildFields(f, o.method);
}

class ChannelPruner {
 public:
  ChannelPruner(const Model& model, const Options& options, PassContext& context)
      : model_(model),
        nodes_(model.graph.nodes),
        index_(model.graph),
        options_(options),
        context_(context),
        groups_(FindChannelGroups(model)) {}

  Model Run() {
    CheckFiniteWeights(model_);
    context_.report["skipped"] = Json::array();
    PinExcluded();
    JoinFamilies();
    Rate();
    for (const auto& [family, members] : members_) ChooseFrom(members);
    Model edited = PruneChosen(
        model_,
        {[&](const Model&, const WeightScan& scan) { return Masks(scan); }, options_.exclude},
        options_.method, context_);
    const Json fitted = FittedOf(context_.report["changed"]);
    ShrinkChannels(edited, removed_, SpillFolder(model_, context_.scratch));
    Report(fitted);
    ReportOthers();
    return edited;
  }

 private:
  const Tensor& WeightOf(const ChannelCut& cut) const {
    return *ConstantOf(model_.graph, index_, nodes_[cut.node].inputs[cut.input], model_.ir_version);
  }

  void PinExcluded() {
    const auto excluded = SelectNodes(model_, options_.exclude, "exclude");
    for (const ChannelCut& cut : groups_.cuts) {
      if (!excluded.contains(&nodes_[cut.node])) continue;
      for (const int64_t id : cut.channels) {
        groups_.pinned.emplace(id, "excluded: " + NodeLabel(nodes_[cut.node]));
      }
    }
  }

  // A family: the groups of layers that share any. Its layers lose the same fraction.
  void JoinFamilies() {
    std::map<int64_t, int64_t> up;
    const auto root = [&](int64_t id) {
      while (up.contains(id) && up.at(id) != id) id = up.at(id);
      return id;
    };
    for (const ChannelCut& cut : groups_.cuts) {
      if (cut.role != CutRole::kMakes) continue;
      for (const int64_t id : cut.channels) {
        const int64_t a = root(cut.channels[0]), b = root(id);
        up[std::max(a, b)] = std::min(a, b);
      }
    }
    std::set<int64_t> seen;
    for (const ChannelCut& cut : groups_.cuts) {
      if (cut.role != CutRole::kMakes) continue;
      for (const int64_t id : cut.channels) {
        if (seen.insert(id).second) members_[root(id)].push_back(id);
      }
    }
  }

  void Rate() {
    const bool has_data = context_.calibration != nullptr;
    const bool by_activation = options_.importance == Importance::kActivation ||
                               (options_.importance == Importance::kAuto && has_data);
    if (by_activation && !has_data) {
      throw Error(ErrorCode::kInvalidArgument, "importance \"activation\" needs calibration data",
                  "calibration");
    }
    context_.report["importance"] = by_activation ? "activation" : "norm";
    std::vector<const ChannelCut*> cuts;
    for (const ChannelCut& cut : groups_.cuts) {
      if (cut.role == CutRole::kReads) cuts.push_back(&cut);
    }
    std::ranges::stable_sort(cuts, {}, &ChannelCut::node);
    const Norm norm = options_.importance == Importance::kL1 ? Norm::kL1 : Norm::kL2;
    std::optional<LayerStream> stream;
    std::optional<ChannelStrengths> strengths;
    if (by_activation) {
      stream.emplace(model_, context_, LayerStream::Bounds{.samples = kImportanceSamplesMax});
    } else {
      strengths.emplace(model_, groups_, norm);
    }
    size_t index = 0;
    for (const ChannelCut* cut : cuts) {
      TellLayer(context_, NodeLabel(nodes_[cut->node]), ++index, cuts.size());
      std::vector<double> parts = NormsOf(WeightOf(*cut), *cut, norm);
      WeightOf(*cut).DropPages();
      if (by_activation) stream->AdvanceTo(cut->node, model_);
      const std::vector<double> inputs =
          by_activation ? Variances(*stream, *cut)
                        : strengths->Of(nodes_[cut->node].inputs[0], cut->channels);
      for (size_t i = 0; i < parts.size(); ++i) parts[i] *= inputs[i];
      AddShares(*cut, parts);
    }
  }

  // Each layer counts the same: a channel's part of all that it reads.
  void AddShares(const ChannelCut& cut, const std::vector<double>& parts) {
    double sum = 0;
    for (const double part : parts) sum += part;
    if (!(sum > 0)) return;
    for (size_t i = 0; i < parts.size(); ++i) importance_[cut.channels[i]] += parts[i] / sum;
  }

  // Of what the slices of a reader's weight are multiplied by. Its mean does not count: the bias
  // makes up for it.
  std::vector<double> Variances(const LayerStream& stream, const ChannelCut& cut) {
    std::vector<double> sums(cut.channels.size()), squares(sums), variances(sums.size(), 1.0);
    const std::string& input = nodes_[cut.node].inputs[0];
    const auto channels = groups_.values.find(input);
    if (channels == groups_.values.end()) return variances;
    double count = 0;
    int64_t left_out = 0;
    for (int64_t sample = 0; sample < stream.sample_count(); ++sample) {
      const Tensor* x = stream.Original(sample, input);
      if (x == nullptr || x->dtype() != DType::kFloat32) return variances;
      const Shape& shape = x->shape();
      const auto after = shape.begin() + static_cast<std::ptrdiff_t>(channels->second.axis) + 1;
      const int64_t inner = ElementCount({after, shape.end()});
      const std::span<const float> values = x->data<float>();
      if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) {
        ++left_out;
        continue;
      }
      for (size_t i = 0; i < values.size(); ++i) {
        const size_t slice = (i / static_cast<size_t>(inner)) % sums.size();
        sums[slice] += values[i];
        squares[slice] += static_cast<double>(values[i]) * values[i];
      }
      count += static_cast<double>(values.size()) / static_cast<double>(sums.size());
      stream.CountRead(std::ssize(x->bytes()));
    }
    TellLeftOut(NodeLabel(nodes_[cut.node]), input, {left_out, stream.sample_count(), "samples"},
                context_);
    for (size_t i = 0; i < sums.size() && count > 0; ++i) {
      variances[i] = std::max(0.0, squares[i] / count - sums[i] / count * (sums[i] / count));
    }
    return variances;
  }

  void ChooseFrom(const std::vector<int64_t>& members) {
    const int64_t count = std::ssize(members), step = options_.multiple_of;
    const double wanted = std::max({(1 - options_.sparsity) * static_cast<double>(count),
                                    options_.keep_min * static_cast<double>(count), 1.0});
    // A rounding error must not cost a whole multiple.
    const int64_t least = static_cast<int64_t>(std::ceil(wanted - 1e-9));
    const int64_t kept = std::min(count, (least + step - 1) / step * step);
    std::vector<int64_t> free;
    for (const int64_t id : members) {
      if (!groups_.pinned.contains(id)) free.push_back(id);
    }
    std::ranges::stable_sort(free, {}, [&](int64_t id) { return importance_[id]; });
    int64_t going = std::min(count - kept, std::ssize(free));
    if (going < count - kept) going = going / step * step;
    removed_.insert(free.begin(), free.begin() + going);
  }

  // The readers' weights without the removed channels.
  std::vector<LayerChoice> Masks(const WeightScan& scan) const {
    std::vector<LayerChoice> choices;
    std::set<ConstantRef> seen;
    for (const WeightSite& site : scan.sites) {
      for (const ChannelCut& cut : groups_.cuts) {
        if (cut.role != CutRole::kReads || &nodes_[cut.node] != site.node) continue;
        if (!std::ranges::any_of(cut.channels, [&](int64_t id) { return removed_.contains(id); }) ||
            !seen.insert(site.root).second) {
          continue;
        }
        choices.push_back({&site, PatternName::kUnstructured, MaskOf(site.stored, cut)});
      }
    }
    return choices;
  }

  std::vector<bool> MaskOf(const Tensor& weight, const ChannelCut& cut) const {
    const Shape& shape = weight.shape();
    const auto after = shape.begin() + static_cast<std::ptrdiff_t>(cut.axis) + 1;
    const int64_t inner = ElementCount({after, shape.end()});
    std::vector<bool> zero(static_cast<size_t>(weight.count()));
    for (int64_t i = 0; i < weight.count(); ++i) {
      const int64_t slice = i / inner % shape[cut.axis];
      zero[static_cast<size_t>(i)] = removed_.contains(cut.channels[static_cast<size_t>(slice)]);
    }
    return zero;
  }

  // The readers whose weights or biases were fitted; of the others those that could not be are
  // listed apart.
  Json FittedOf(const Json& readers) {
    Json fitted = Json::array();
    for (const Json& reader : readers) {
      if (reader.contains("not_reconstructed")) {
        context_.report["not_fitted"].push_back(
            {{"node", reader.at("node")}, {"reason", reader.at("not_reconstructed")}});
      } else if (reader.value("fitted", false) || reader.value("bias_fitted", false)) {
        fitted.push_back(reader);
      }
    }
    return fitted;
  }

  void Report(const Json& fitted) {
    Json changed = Json::array();
    int64_t all = 0, left = 0;
    for (const ChannelCut& cut : groups_.cuts) {
      if (cut.role != CutRole::kMakes) continue;
      const int64_t count = std::ssize(cut.channels);
      const int64_t gone =
          std::ranges::count_if(cut.channels, [&](int64_t id) { return removed_.contains(id); });
      all += count;
      left += count - gone;
      const std::string node = NodeLabel(nodes_[cut.node]), reason = WhyPinned(cut);
      if (gone > 0) {
        Json entry = {{"node", node}, {"channels_before", count}, {"channels", count - gone}};
        if (!reason.empty()) entry["pinned"] = reason;
        changed.push_back(std::move(entry));
      } else {
        context_.report["skipped"].push_back(
            {{"node", node},
             {"reason", reason.empty() ? "as many channels stay as it has" : reason}});
      }
    }
    context_.report["changed"] = std::move(changed);
    context_.report["fitted"] = fitted;
    context_.report["channels_before"] = all;
    context_.report["channels"] = left;
    if (left == all && options_.sparsity > 0) {
      context_.report["warnings"].push_back(
          "no channel is removed: skipped says of each layer why");
    }
    context_.report.erase("sparsity");
  }

  // The layers that make no channels of their own.
  void ReportOthers() {
    std::set<const Node*> makers;
    for (const ChannelCut& cut : groups_.cuts) {
      if (cut.role == CutRole::kMakes) makers.insert(&nodes_[cut.node]);
    }
    const auto skip = [&](const Node& node, const std::string& reason) {
      context_.report["skipped"].push_back({{"node", NodeLabel(node)}, {"reason", reason}});
    };
    const WeightScan scan = FindWeights(model_);
    const auto types = InferShapes(model_);
    for (const WeightSite& site : scan.sites) {
      if (makers.contains(site.node)) continue;
      const auto type = types.find(site.node->inputs[0]);
      if (site.graph != &model_.graph) {
        skip(*site.node, "channels are not followed into subgraphs");
      } else if (IsDepthwise(site)) {
        skip(*site.node, "depthwise: it has the channels of the layer before it");
      } else if (site.stored.dtype() != DType::kFloat32) {
        skip(*site.node,
             std::string("its weight is ") + DTypeName(site.stored.dtype()) + ", not float32");
      } else if (type == types.end() || !type->second.shape) {
        skip(*site.node, "the rank of its input \"" + site.node->inputs[0] + "\" is not known");
      } else {
        skip(*site.node, "its weight is not an operand that can be cut along its channels");
      }
    }
    for (const SkippedNode& skipped : scan.skipped) skip(*skipped.node, skipped.reason);
  }

  // Of the first channel that must stay.
  std::string WhyPinned(const ChannelCut& cut) const {
    for (const int64_t id : cut.channels) {
      if (const auto pin = groups_.pinned.find(id); pin != groups_.pinned.end()) return pin->second;
    }
    return "";
  }

  const Model& model_;
  const std::vector<Node>& nodes_;
  GraphIndex index_;
  const Options& options_;
  PassContext& context_;
  ChannelGroups groups_;
  std::map<int64_t, std::vector<int64_t>> members_;  // of each family
  std::map<int64_t, double> importance_;             // of each group
  std::set<int64_t> removed_;
};

Model Prune(Model model, const Options& given, PassContext& context) {
  Options options = given;
  SelectNodes(model, options.exclude, "exclude");
  if (model.ir_version < 4) DropInitializerInputs(model);  // else what was cut would stay
  NodeHistory history(model);
  const HalfStorage halves(model, SpillFolder(model, context.scratch));
  history.Advance(model, "widening");
  Json notes;
  options.exclude = history.Follow({{"exclude", given.exclude}}, notes).at("exclude");
  RemoveConstantAliases(model, SelectorOf(options.exclude));
  Model out = ChannelPruner(model, options, context).Run();
  halves.Restore(out, context.report, HalfStorage::Changed::kAreRounded);
  return out;
}

bool NeedsCalibration(const Json& options) {
  return options.at("reconstruct") == "on" || options.at("importance") == "activation";
}

}  // namespace

extern const PassInfo kChannelPrune = DefinePass<Options, Prune>(
    "channel_prune", "Removes whole channels, so that layers get smaller.", NeedsCalibration, 13);

}  // namespace pared
