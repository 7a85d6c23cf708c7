#include "passes/layer_losses.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <unordered_map>

#include "base/error.h"
#include "evaluator/executor.h"
#include "kernels/gemm.h"
#include "passes/calibrate.h"
#include "passes/choose_damping.h"
#include "passes/int8_fidelity.h"
#include "passes/layer_progress.h"
#include "passes/layer_statistics.h"
#include "passes/select_smallest.h"
#include "passes/shared_statistics.h"

namespace pared {
namespace {

constexpr int64_t kSamplesMax = 64;
constexpr int64_t kMacsMax = int64_t{1} << 37;  // of all samples
constexpr int64_t kJudgedMax = 8;  // samples that the gain to the outputs is measured on
constexpr int64_t kRowsMax = 32;   // rows are independent: some of them tell the layer's loss
constexpr double kSparsities[] = {0.3, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98};
constexpr double kLightSparsity = kSparsities[0];  // whose noise is still small everywhere
constexpr double kChoosingSparsity = 0.8;          // that the damping of all points is chosen at
constexpr int kSplits = 3;                         // of each step, for the curve between the points

std::vector<bool> Zeroes(const LayerLoss& layer, double sparsity) {
  return LeastUnits(*layer.site, layer.pattern, layer.importance, sparsity);
}

double EnergyOf(const LayerStatistics& s) {
  double energy = 0;
  for (const double square : s.y_square) energy += square;
  return energy;
}

// One part of a layer on both halves of the samples.
struct HalvedPart {
  InputPart part;
  LayerStatistics fitted, held;  // of `rows` only
  std::vector<int64_t> rows;
  std::vector<float> weight;
  std::optional<double> damping;
};

class LossMeter {
 public:
  LossMeter(const Model& model, const LossRequest& request, PassContext& context)
      : model_(model),
        request_(request),
        context_(context),
        stream_(model, context, {kSamplesMax, kMacsMax}) {
    if (!request.with_points) return;
    judge_.emplace(model, context, kJudgedMax);
    CountPositions();
  }

  void Measure(LayerLoss& layer) {
    layer.why_not = layer.site->graph == &model_.graph && layer.site->root.first == &model_.graph
                        ? WhyNoStatistics(*layer.site)
                        : "its weight is of another graph";
    if (!layer.why_not.empty()) return;
    const WeightSite& site = *layer.site;
    stream_.AdvanceTo(static_cast<size_t>(site.node - model_.graph.nodes.data()), model_);
    std::vector<HalvedPart> parts;
    std::vector<float> importance(static_cast<size_t>(site.stored.count()));
    for (const InputPart& part : PartsOf(site)) {
      std::optional<HalvedPart> halved = Take(layer, part, importance);
      if (!halved) {
        layer.why_not = "its input is constant or not float32";
        return;
      }
      parts.push_back(std::move(*halved));
    }
    if (request_.importance == Importance::kWanda) layer.importance = std::move(importance);
    if (request_.with_points) AddPoints(layer, parts);
  }

 private:
  // Multiplications by each weight: the positions of the output on the first sample.
  void CountPositions() {
    const Executor executor(model_, {.threads = context_.threads, .fuse = false});
    const Observer observer = [&](const std::string& value, const Tensor& tensor) {
      elements_[value] = tensor.count();
    };
    executor.Run(context_.calibration->Sample(0, executor.inputs()), &observer);
  }

  std::optional<HalvedPart> Take(LayerLoss& layer, const InputPart& part,
                                 std::vector<float>& importance) {
    const WeightSite& site = *layer.site;
    StatisticsRequest even{.site = &site, .part = part, .is_centered = true};
    if (stream_.sample_count() > 1) even.folds = 2;
    StatisticsRequest odd = even;
    odd.fold = even.folds - 1;
    std::optional<LayerStatistics> fitted = TakeStatistics(stream_, even);
    std::optional<LayerStatistics> held = TakeStatistics(stream_, odd);
    if (!fitted || !held) return std::nullopt;
    layer.left_out.count += fitted->left_out + held->left_out;
    layer.left_out.of += fitted->left_out + fitted->count + held->left_out + held->count;
    if (fitted->count == 0) fitted = held;
    if (held->count == 0) held = fitted;
    HalvedPart halved;
    halved.part = part;
    halved.weight = PartWeight(site, part);
    AddImportance(site, part, {&*fitted, &*held}, importance);
    if (!request_.with_points) return halved;
    halved.rows = SpreadRows(site.layout.rows, kRowsMax);
    halved.fitted = RowsOf(*fitted, halved.rows);
    halved.held = RowsOf(*held, halved.rows);
    return halved;
  }

  static void AddImportance(const WeightSite& site, const InputPart& part,
                            const std::vector<const LayerStatistics*>& halves,
                            std::vector<float>& importance) {
    const MatrixLayout& layout = site.layout;
    std::vector<double> norms;
    for (int64_t k = 0; k < part.size(); ++k) {
      double square = 0;
      for (const LayerStatistics* s : halves) {
        const double mean = s->x_mean[static_cast<size_t>(k)];
        square += s->h[static_cast<size_t>(k * part.size() + k)] +
                  static_cast<double>(s->count) * mean * mean;
      }
      norms.push_back(std::sqrt(std::max(square, 0.0)));
    }
    const std::span<const float> stored = site.stored.data<float>();
    for (int64_t row = 0; row < layout.rows; ++row) {
      for (int64_t k = part.begin; k < part.end; ++k) {
        const int64_t viewed = layout.Index(part.group, row, k);
        const double weight = stored[static_cast<size_t>(site.StoredIndex(viewed))];
        importance[static_cast<size_t>(viewed)] =
            static_cast<float>(std::fabs(weight) * norms[static_cast<size_t>(k - part.begin)]);
      }
    }
  }

  void AddPoints(LayerLoss& layer, std::vector<HalvedPart>& parts) {
    const WeightSite& site = *layer.site;
    const double count = static_cast<double>(site.stored.count());
    const double positions = static_cast<double>(elements_.at(site.node->outputs[0])) /
                             static_cast<double>(site.layout.groups * site.layout.rows);
    layer.size = request_.budget == Budget::kWeights ? count : count * positions;
    Choose(layer, parts);
    const double gain = GainToOutputs(layer, parts);
    SparsityPoint last;
    for (double sparsity : kSparsities) {
      sparsity = std::min(sparsity, request_.sparsity_max);
      if (sparsity <= last.sparsity) break;
      const std::vector<bool> zero = Zeroes(layer, sparsity);
      SparsityPoint point{sparsity, layer.size * SavedShare(layer, zero, sparsity),
                          gain * RelativeLoss(site, parts, zero, request_.is_fitted)};
      point.loss = std::max(point.loss, last.loss);
      AddBetween(layer.points, last, point);
      last = point;
    }
  }

  // Losses grow by factors: the curve between two points is drawn on a logarithmic scale.
  static void AddBetween(std::vector<SparsityPoint>& points, const SparsityPoint& from,
                         const SparsityPoint& to) {
    for (int i = 1; i < kSplits; ++i) {
      const double part = static_cast<double>(i) / kSplits;
      const auto between = [&](double a, double b) { return a + part * (b - a); };
      const double loss =
          from.loss > 0 ? from.loss * std::pow(to.loss / from.loss, part) : to.loss * part * part;
      points.push_back({between(from.sparsity, to.sparsity), between(from.saved, to.saved), loss});
    }
    points.push_back(to);
  }

  void Choose(const LayerLoss& layer, std::vector<HalvedPart>& parts) const {
    if (!request_.is_fitted) return;
    const std::vector<bool> zero =
        Zeroes(layer, std::min(kChoosingSparsity, request_.sparsity_max));
    for (HalvedPart& halved : parts) {
      const std::vector<bool> mask = MaskOf(*layer.site, halved, zero);
      const DampingChoice choice = ChooseDamping(
          halved.fitted, halved.held, RowsOf(halved.weight, halved.fitted.k, halved.rows), mask);
      if (choice.is_fitted) halved.damping = choice.damping;
    }
  }

  static std::vector<bool> MaskOf(const WeightSite& site, const HalvedPart& halved,
                                  const std::vector<bool>& zero) {
    std::vector<bool> mask;
    for (const int64_t row : halved.rows) {
      for (int64_t k = halved.part.begin; k < halved.part.end; ++k) {
        const int64_t at = site.StoredIndex(site.layout.Index(halved.part.group, row, k));
        mask.push_back(zero[static_cast<size_t>(at)]);
      }
    }
    return mask;
  }

  // Noise by signal of the layer's own outputs on the held-out half.
  static double RelativeLoss(const WeightSite& site, const std::vector<HalvedPart>& parts,
                             const std::vector<bool>& zero, bool is_fitted) {
    double noise = 0, signal = 0;
    for (const HalvedPart& halved : parts) {
      const std::vector<bool> mask = MaskOf(site, halved, zero);
      const std::vector<float> original = RowsOf(halved.weight, halved.fitted.k, halved.rows);
      std::vector<float> weight = original;
      for (size_t j = 0; j < mask.size(); ++j) {
        if (mask[j]) weight[j] = 0;
      }
      double error = HeldOutError(halved.held, is_fitted ? &halved.fitted : nullptr, weight);
      if (is_fitted && halved.damping) {
        weight = SolveMasked({&halved.fitted, &original, *halved.damping}, mask, weight);
        error = std::min(error, HeldOutError(halved.held, &halved.fitted, weight));
      }
      noise += error;
      signal += EnergyOf(halved.held);
    }
    return signal > 0 ? noise / signal : 0;
  }

  double GainToOutputs(const LayerLoss& layer, const std::vector<HalvedPart>& parts) const {
    const std::vector<bool> zero = Zeroes(layer, kLightSparsity);
    const double own = RelativeLoss(*layer.site, parts, zero, false);
    if (own == 0) return 0;
    Model light = model_;
    ReplaceConstants(light,
                     {{{&light.graph, layer.site->root.second}, Zeroed(layer.site->stored, zero)}});
    return std::pow(10, -judge_->SqnrDb(light) / 10) / own;
  }

  double SavedShare(const LayerLoss& layer, const std::vector<bool>& zero, double sparsity) const {
    if (request_.budget != Budget::kLatency) return sparsity;
    const MatrixLayout& layout = layer.site->layout;
    std::vector<int8_t> codes(static_cast<size_t>(layout.rows * layout.k));
    ForEachWeight(*layer.site, WholeGroup(*layer.site, 0),
                  [&](size_t at, size_t in) { codes[at] = zero[in] ? 0 : 1; });
    const GemmPrediction gains =
        PredictGemm({.m = layout.rows, .k = layout.k, .values = codes, .epilogue = {}});
    const double best = std::max({1.0, gains.sparse_1x1, gains.sparse_2x1, gains.sparse_4x1});
    return 1 - 1 / best;
  }

  const Model& model_;
  const LossRequest& request_;
  PassContext& context_;
  LayerStream stream_;
  std::optional<FidelityJudge> judge_;
  std::unordered_map<std::string, int64_t> elements_;  // of each value
};

}  // namespace

static std::vector<LayerLoss> Measure(const Model& model, const LossRequest& request,
                                      PassContext& context, std::vector<LayerLoss> layers) {
  LossMeter meter(model, request, context);
  for (size_t i = 0; i < layers.size(); ++i) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while measuring");
    SetLayer(context, NodeLabel(*layers[i].site->node), i + 1, layers.size());
    // The other half is what is done with the losses.
    context.progress(static_cast<double>(i) / static_cast<double>(layers.size()) / 2);
    meter.Measure(layers[i]);
  }
  for (LayerLoss& layer : layers) layer.site = nullptr;  // it points into this model
  return layers;
}

// Site and pattern of each layer, and what is asked of it.
static Json Describe(const LossRequest& request, const std::vector<LayerLoss>& layers) {
  Json about = {{"importance", request.importance},
                {"with_points", request.with_points},
                {"is_fitted", request.is_fitted},
                {"budget", request.budget},
                {"sparsity_max", request.sparsity_max}};
  for (const LayerLoss& layer : layers) {
    const Pattern& pattern = layer.pattern;
    about["layers"].push_back({layer.site->node->outputs[0], layer.site->input, pattern.rows,
                               pattern.columns, pattern.keep, pattern.of});
  }
  return about;
}

static int64_t BytesOf(const std::vector<LayerLoss>& losses) {
  size_t bytes = 0;
  for (const LayerLoss& loss : losses) {
    bytes += sizeof(loss) + 4 * loss.importance.size() + sizeof(SparsityPoint) * loss.points.size();
  }
  return static_cast<int64_t>(bytes);
}

void MeasureLosses(const Model& model, const LossRequest& request, PassContext& context,
                   std::vector<LayerLoss>& layers) {
  const auto losses = Shared(
      {"losses of layers", model, Describe(request, layers)}, context,
      [&] { return Measure(model, request, context, layers); }, BytesOf);
  for (size_t i = 0; i < layers.size(); ++i) {
    const WeightSite* site = layers[i].site;
    layers[i] = (*losses)[i];
    layers[i].site = site;
    if (!layers[i].why_not.empty()) continue;
    TellLeftOut(NodeLabel(*site->node), site->node->inputs[0], layers[i].left_out, context);
  }
}

std::vector<bool> LeastUnits(const WeightSite& site, Pattern pattern,
                             const std::vector<float>& importance, double sparsity) {
  const PruneUnits units(site, pattern, importance);
  const int64_t all = std::ssize(units.scores());
  const int64_t wanted = std::llround(sparsity * static_cast<double>(all));
  // A layer without weights would make the same of everything.
  const int64_t count = std::clamp<int64_t>(wanted, 0, std::max<int64_t>(0, all - 1));
  Threshold threshold = SelectSmallest({units.scores()}, count);
  return units.Below(threshold.magnitude, threshold.ties);
}

}  // namespace pared
