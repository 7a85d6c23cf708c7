#include "passes/prune_layers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>

#include "base/error.h"
#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/calibrate.h"
#include "passes/choose_damping.h"
#include "passes/each_layer.h"
#include "passes/layer_progress.h"
#include "passes/layer_statistics.h"
#include "passes/least_squares.h"
#include "passes/left_out.h"
#include "passes/log_power.h"
#include "passes/select_nodes.h"
#include "passes/widen_halves.h"

namespace pared {
namespace {

constexpr int64_t kSamplesMax = 1024;
constexpr int64_t kMacsMax = int64_t{1} << 38;  // of all samples in one model
constexpr int64_t kLiveBytes = int64_t{1} << 29;
// So damped, second moments tell of each input by itself alone.
constexpr double kEachAlone = 1e4;

// Where a layer's bias stands, or can be put.
struct BiasPlace {
  size_t node = 0, input = 0;  // of the main graph
  std::string name;            // of the value there now; empty: none
  Shape shape;
  std::vector<float> values;
};

std::optional<BiasPlace> ConstantBias(const Model& model, const GraphIndex& index,
                                      const BiasPlace& at, int64_t channels) {
  const Tensor* tensor = ConstantOf(model.graph, index, at.name, model.ir_version);
  if (tensor == nullptr || tensor->dtype() != DType::kFloat32) return std::nullopt;
  if (tensor->count() != channels || tensor->shape().empty()) return std::nullopt;
  if (tensor->shape().back() != channels) return std::nullopt;
  BiasPlace place = at;
  place.shape = tensor->shape();
  place.values.assign(tensor->data<float>().begin(), tensor->data<float>().end());
  return place;
}

std::optional<BiasPlace> FindBias(const Model& model, const GraphIndex& index,
                                  const WeightSite& site) {
  const std::vector<Node>& nodes = model.graph.nodes;
  const auto number = [&](const Node* node) { return static_cast<size_t>(node - nodes.data()); };
  const int64_t channels = site.layout.groups * site.layout.rows;
  const Node& node = *site.node;
  if (node.op_type == "MatMul") {
    const std::vector<const Node*>& readers = index.consumers(node.outputs[0]);
    if (readers.size() != 1 || readers[0]->op_type != "Add") return std::nullopt;
    if (index.is_output(node.outputs[0])) return std::nullopt;
    const size_t input = readers[0]->inputs[0] == node.outputs[0] ? 1 : 0;
    return ConstantBias(model, index,
                        {number(readers[0]), input, readers[0]->inputs[input], {}, {}}, channels);
  }
  if (node.inputs.size() > 2 && !node.inputs[2].empty()) {
    return ConstantBias(model, index, {number(&node), 2, node.inputs[2], {}, {}}, channels);
  }
  return BiasPlace{
      number(&node), 2, "", {channels}, std::vector<float>(static_cast<size_t>(channels), 0.0f)};
}

// Weights of one ranking are read together. Those that lie unaligned in the model's file go to one
// of their own: in memory, copies of all of them would be as large as the model.
void AlignConstants(Model& model, const std::filesystem::path& spill) {
  if (spill.empty()) return;
  const auto align = [&](Tensor& tensor) {
    if (tensor.dtype() != DType::kFloat32) return;
    if (reinterpret_cast<uintptr_t>(tensor.bytes().data()) % alignof(float) == 0) return;
    const Tensor aligned = Spilled(tensor, spill);
    tensor.DropPages();
    tensor = aligned;
  };
  for (Node& node : model.graph.nodes) {
    if (node.op_type != "Constant" || node.TensorOf("value") == nullptr) continue;
    align(std::get<Tensor>(node.attributes.find("value")->value));
  }
  for (const auto& [name, unused] : model.graph.initializers) {
    align(model.graph.initializers.find(name)->tensor);
  }
}

class Rebuilder {
 public:
  Rebuilder(const Model& original, const PruneRequest& request, const PruneMethod& method,
            PassContext& context)
      : original_(original),
        request_(request),
        method_(method),
        context_(context),
        scan_(FindWeights(original)),
        index_(original.graph),
        names_(original),
        choices_(request.choose(original, scan_)),
        edited_(original),
        sums_before_log_(SumsBeforeLog(original)) {}

  Model Run() {
    context_.report["changed"] = Json::array();
    ConstantEdits edits;
    const std::filesystem::path spill = SpillFolder(original_, context_.scratch);
    std::vector<Tensor> zeroed(choices_.size());
    const auto make = [&](size_t i) {
      zeroed[i] = Spilled(Zeroed(choices_[i].site->stored, choices_[i].zero), spill);
    };
    ForEachLayer(choices_.size(), spill, make, [&](size_t i) {
      edits.emplace(EditedRef(choices_[i].site->root), std::move(zeroed[i]));
      choices_[i].site->stored.DropPages();
    });
    ReplaceConstants(edited_, edits);
    const bool rebuilds = method_.rebuild != Rebuild::kOff && context_.calibration != nullptr;
    if (method_.rebuild == Rebuild::kOn && !rebuilds) {
      throw Error(ErrorCode::kInvalidArgument, "reconstruction needs calibration data",
                  "calibration");
    }
    context_.report["reconstructed"] = rebuilds;
    if (scan_.sites.empty() && scan_.skipped.empty()) {
      context_.report["warnings"].push_back("the model has no operator with weights to prune");
    }
    if (rebuilds) RebuildAll();
    for (const LayerChoice& choice : choices_) Report(choice);
    const double elements = static_cast<double>(elements_);
    context_.report["sparsity"] = elements_ == 0 ? 0.0 : 1 - kept_ / elements;
    DropOldBiases();
    return std::move(edited_);
  }

 private:
  ConstantRef EditedRef(const ConstantRef& ref) const {
    return ref.first == &original_.graph ? ConstantRef{&edited_.graph, ref.second} : ref;
  }

  // Sites of the main graph in node order: the pruned, and the depthwise that nobody excluded.
  std::vector<const WeightSite*> SitesInOrder() const {
    const auto excluded = SelectNodes(original_, request_.exclude, "exclude");
    std::vector<const WeightSite*> sites;
    for (const WeightSite& site : scan_.sites) {
      if (site.graph != &original_.graph) continue;
      const bool is_free = IsDepthwise(site) && !excluded.contains(site.node);
      if (is_free || ChoiceOf(site) != nullptr) sites.push_back(&site);
    }
    return sites;
  }

  const LayerChoice* ChoiceOf(const WeightSite& site) const {
    const auto found = std::ranges::find(choices_, &site, &LayerChoice::site);
    return found == choices_.end() ? nullptr : &*found;
  }

  std::string WhyNotRebuilt(const WeightSite& site) const {
    if (sums_before_log_.contains(site.node)) {
      return "what it makes is a power whose logarithm is taken: fitted, it may fall below zero";
    }
    if (site.root.first != &original_.graph) return "its weight is of another graph";
    const int64_t sites = std::ranges::count_if(
        scan_.sites, [&](const WeightSite& other) { return other.root == site.root; });
    if (sites > 1 || index_.consumers(site.root.second).size() > 1) {
      return "other nodes read its weight too";
    }
    return WhyNoStatistics(site);
  }

  void RebuildAll() {
    LayerStream stream(original_, context_, {kSamplesMax, kMacsMax, kLiveBytes});
    const std::vector<const WeightSite*> sites = SitesInOrder();
    for (size_t i = 0; i < sites.size(); ++i) {
      const size_t node = static_cast<size_t>(sites[i]->node - original_.graph.nodes.data());
      TellLayer(context_, NodeLabel(*sites[i]->node), i + 1, sites.size());
      stream.AdvanceTo(node, edited_);
      const std::string reason = WhyNotRebuilt(*sites[i]);
      if (reason.empty()) {
        RebuildSite(stream, *sites[i]);
      } else {
        notes_[sites[i]]["not_reconstructed"] = reason;
      }
    }
    context_.report["samples"] = stream.sample_count();
    context_.report["reconstructed"] = is_any_fitted_;
    for (const LayerChoice& choice : choices_) {
      if (choice.site->graph == &original_.graph) continue;
      notes_[choice.site]["not_reconstructed"] = "it is within a branch or the body of a loop";
    }
    if (!choices_.empty() && !context_.report["reconstructed"]) {
      context_.report["warnings"].push_back(
          "no layer was fitted to the calibration data: not_reconstructed says of each why; where "
          "it is not there, nothing does better on samples that it was not fitted to");
    }
  }

  void RebuildSite(const LayerStream& stream, const WeightSite& site) {
    std::optional<BiasPlace> bias = FindBias(original_, index_, site);
    LayerChoice* choice = const_cast<LayerChoice*>(ChoiceOf(site));
    const size_t count = static_cast<size_t>(site.stored.count());
    std::vector<bool> zero = choice == nullptr ? std::vector<bool>(count, false) : choice->zero;
    std::vector<float> stored = ToFloat(site.stored);
    // What an earlier pass pruned stays pruned, also where this one only fits.
    for (size_t i = 0; i < count; ++i) {
      if (stored[i] == 0) zero[i] = true;
    }
    const std::string skip = FindSkip(stream, site);
    if (!skip.empty()) notes_[&site]["skip"] = skip;
    double signal = 0, before = 0, after = 0;
    bool is_fitted = false, is_bias_fitted = false;  // of any part
    const std::vector<InputPart> parts = PartsOf(site);
    if (std::ssize(parts) > site.layout.groups) {
      notes_[&site]["input_parts"] = std::ssize(parts) / site.layout.groups;
    }
    for (const InputPart& part : parts) {
      const StatisticsRequest request{
          .site = &site, .part = part, .is_centered = bias.has_value(), .skip = skip};
      const auto [s, halves] = TakeSplit(stream, request);
      if (!s) {
        notes_[&site]["not_reconstructed"] = "its input is constant or not float32";
        return;
      }
      TellLeftOut(NodeLabel(*site.node), site.node->inputs[0],
                  {s->left_out, s->left_out + s->count}, context_);
      const std::vector<float> original = PartWeight(site, part);
      std::vector<bool> mask(original.size());
      ForEachWeight(site, part, [&](size_t at, size_t in) { mask[at] = zero[in]; });
      DampingChoice trust;
      if (!ChoosesDamping()) {
        trust.damping = method_.damping;
      } else if (halves) {
        trust = ChooseDamping(halves->fitted, halves->held, original, mask);
      }
      const auto [weight, error, masked_error] =
          SolvePart({&*s, &original, trust.damping}, site, mask, trust);
      std::vector<float> masked = original;
      ForEachWeight(site, part, [&](size_t at, size_t in) {
        if (zero[in]) masked[at] = 0;
        zero[in] = mask[at];
        stored[in] = weight[at];
        is_fitted = is_fitted || (!mask[at] && weight[at] != original[at]);
      });
      if (method_.rebuild == Rebuild::kBias && halves) {
        trust.shifts_bias = BiasHelps(*halves, masked);
        notes_[&site]["fitted"] = trust.shifts_bias;
      }
      for (const double square : s->y_square) signal += square;
      before += masked_error ? *masked_error : SquaredErrorOf(*s, masked);
      after += error;
      const bool shifts_bias = bias && trust.shifts_bias;
      if (shifts_bias) ShiftBias(*s, weight, part.group, bias->values);
      is_bias_fitted = is_bias_fitted || shifts_bias;
    }
    notes_[&site]["output_sqnr_db_pruned"] = SqnrDb(signal, before);
    notes_[&site]["output_sqnr_db"] = SqnrDb(signal, after);
    if (choice != nullptr) choice->zero = zero;
    ReplaceConstants(edited_, {{EditedRef(site.root), Tensor::Make(site.stored.shape(), stored)}});
    if (is_bias_fitted) PutBias(*bias, site);
    notes_[&site]["bias_fitted"] = is_bias_fitted;
    if (method_.rebuild != Rebuild::kBias) notes_[&site]["fitted"] = is_fitted;
    is_any_fitted_ = is_any_fitted_ || is_fitted || is_bias_fitted;
  }

  // The value that the output of a matrix product, its bias added, is added to, where nothing else
  // reads it. Convolutions are not asked to make up for theirs: rapidocr-cls came out 2.6 dB worse
  // to 0.1 dB better.
  std::string FindSkip(const LayerStream& stream, const WeightSite& site) const {
    if (site.node->op_type == "Conv") return "";
    std::string sum = site.node->outputs[0];
    while (stream.sample_count() > 0 && !index_.is_output(sum)) {
      const std::vector<const Node*>& readers = index_.consumers(sum);
      if (readers.size() != 1 || readers[0]->op_type != "Add") break;
      const Node& add = *readers[0];
      const std::string& other = add.inputs[add.inputs[0] == sum ? 1 : 0];
      const Tensor* skip = stream.Original(0, other);
      if (skip != nullptr) return skip->dtype() == DType::kFloat32 ? other : "";
      if (ConstantOf(original_.graph, index_, other, original_.ir_version) == nullptr) break;
      sum = add.outputs[0];
    }
    return "";
  }

  struct Solved {
    std::vector<float> weight;
    double error = 0;                         // squared
    std::optional<double> masked_error = {};  // of the original with zeros, where it is known
  };

  // The weight of one part; a second-order method also chooses the mask anew.
  Solved SolvePart(const LeastSquares& problem, const WeightSite& site, std::vector<bool>& mask,
                   const DampingChoice& trust) {
    const LayerStatistics& s = *problem.statistics;
    if (ChoosesDamping()) NoteTrust(site, trust);
    const LayerChoice* choice = ChoiceOf(site);
    std::optional<ZeroedRows> found;
    if (method_.is_second_order && choice != nullptr) {
      LeastSquares search = problem;
      if (!trust.is_fitted) search.damping = kEachAlone;
      found = FindZeros(search, PatternOf(choice->pattern), mask);
      if (!found) notes_[&site]["fallback"] = "magnitude: its second moments have no factors";
    }
    if (found) mask = found->zero;
    std::vector<float> start = *problem.original;
    for (size_t i = 0; i < start.size(); ++i) {
      if (mask[i]) start[i] = 0;
    }
    std::optional<double> masked_error;
    if (method_.rebuild == Rebuild::kBias || !trust.is_fitted) {
      const double error = SquaredErrorOf(s, start);
      if (!found) masked_error = error;
      return {start, error, masked_error};
    }
    if (found) start = std::move(found->weight);
    MeasuredSolution solved = SolveMeasured(problem, mask, start);
    if (!found) masked_error = solved.start_error;
    if (solved.error <= solved.start_error) {
      return {std::move(solved.weight), solved.error, masked_error};
    }
    return {std::move(start), solved.start_error, masked_error};
  }

  bool ChoosesDamping() const { return method_.damping == 0 && method_.rebuild != Rebuild::kBias; }

  // Of the last part, where a layer has several.
  void NoteTrust(const WeightSite& site, const DampingChoice& trust) {
    notes_[&site]["damping"] = trust.damping;
  }

  static void ShiftBias(const LayerStatistics& s, const std::vector<float>& weight, int64_t group,
                        std::vector<float>& bias) {
    for (int64_t row = 0; row < s.rows; ++row) {
      double shift = s.y_mean[static_cast<size_t>(row)];
      for (int64_t k = 0; k < s.k; ++k) {
        shift -= weight[static_cast<size_t>(row * s.k + k)] * s.x_mean[static_cast<size_t>(k)];
      }
      bias[static_cast<size_t>(group * s.rows + row)] += static_cast<float>(shift);
    }
  }

  // As a new initializer: the old one may have other readers.
  void PutBias(const BiasPlace& place, const WeightSite& site) {
    const std::string name = names_.Make(site.root.second + "_bias");
    edited_.graph.initializers.set(name, {Tensor::Make(place.shape, place.values), {}});
    std::vector<std::string>& inputs = edited_.graph.nodes[place.node].inputs;
    inputs.resize(std::max(inputs.size(), place.input + 1));
    inputs[place.input] = name;
    if (!place.name.empty()) old_biases_.insert(place.name);
  }

  // Before IR version 4 every initializer stands among the inputs, and goes from there with it;
  // since then such an input is a default that a caller may know of.
  void DropOldBiases() {
    const GraphIndex index(edited_.graph);
    std::erase_if(old_biases_,
                  [&](const std::string& name) { return !index.consumers(name).empty(); });
    std::vector<ValueInfo>& inputs = edited_.graph.inputs;
    if (edited_.ir_version < 4) {
      std::erase_if(inputs, [&](const ValueInfo& v) { return old_biases_.contains(v.name); });
    }
    for (const ValueInfo& input : inputs) old_biases_.erase(input.name);
    for (const ValueInfo& output : edited_.graph.outputs) old_biases_.erase(output.name);
    edited_.graph.initializers.erase_if(
        [&](const std::string& name, const Initializer&) { return old_biases_.contains(name); });
  }

  void Report(const LayerChoice& choice) {
    const WeightSite& site = *choice.site;
    const int64_t count = site.stored.count();
    const double density = DensityOf(site.stored, choice.zero);
    site.stored.DropPages();
    Json entry = {{"node", NodeLabel(*site.node)},
                  {"weight", site.root.second},
                  {"shape", site.shape},
                  {"pattern", PatternText(choice.pattern)},
                  {"density", density}};
    if (const auto note = notes_.find(&site); note != notes_.end()) entry.update(note->second);
    context_.report["changed"].push_back(std::move(entry));
    elements_ += count;
    kept_ += density * static_cast<double>(count);
  }

  const Model& original_;
  const PruneRequest& request_;
  const PruneMethod& method_;
  PassContext& context_;
  WeightScan scan_;
  GraphIndex index_;
  FreshNames names_;
  std::vector<LayerChoice> choices_;
  Model edited_;
  const std::unordered_set<const Node*> sums_before_log_;
  std::map<const WeightSite*, Json> notes_;
  std::set<std::string> old_biases_;
  bool is_any_fitted_ = false;  // a weight or a bias of any layer
  int64_t elements_ = 0;
  double kept_ = 0;
};

}  // namespace

void RebuildFields(FieldVisitor& f, PruneMethod& method) {
  f.Number("damping", method.damping, {0, 10},
           "Pull of reconstructed weights towards the original ones, against the mean square of "
           "their inputs: more for few samples. 0: what does best for each layer where half of the "
           "samples are fitted and the other half measured; layers for which nothing does are left "
           "as they are.");
}

Model PruneChosen(const Model& model, const PruneRequest& request, const PruneMethod& method,
                  PassContext& context) {
  return Rebuilder(model, request, method, context).Run();
}

namespace {

Model PruneFloats(Model model, const PruneOptions& options, const PruneMethod& method,
                  PassContext& context) {
  if (options.freeze_inputs) DropInitializerInputs(model);
  AlignConstants(model, SpillFolder(model, context.scratch));
  PruneOptions chosen = options;
  chosen.is_fitted = method.rebuild == Rebuild::kAuto || method.rebuild == Rebuild::kOn;
  const auto choose = [&](const Model& of, const WeightScan& scan) {
    return ChooseZeros(of, scan, chosen, context);
  };
  return PruneChosen(model, {choose, options.exclude}, method, context);
}

}  // namespace

Model PruneLayers(Model model, const PruneOptions& options, const PruneMethod& method,
                  PassContext& context) {
  const auto prune = [&](Model of) { return PruneFloats(std::move(of), options, method, context); };
  // By magnitude alone, tensors of any type are read one after the other.
  if (context.calibration == nullptr) return prune(std::move(model));
  return EditWidened(model, SpillFolder(model, context.scratch), prune);
}

}  // namespace pared
