#include "passes/int8_fit.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "model/rewrite.h"
#include "passes/choose_damping.h"
#include "passes/layer_statistics.h"
#include "passes/least_squares.h"
#include "passes/matrix_product.h"
#include "passes/second_order_round.h"
#include "passes/shared_statistics.h"
#include "passes/weight_codes.h"

namespace pared {
namespace {

constexpr int64_t kSamplesMax = 64;
constexpr int64_t kMacsMax = int64_t{1} << 37;             // of all samples in one model
constexpr int64_t kColumnsMin = 1024, kColumnsMax = 4096;  // of all samples together
constexpr double kDamping = 0.01;  // of one sample, which tells nothing of others
// From the original weights, which are near: more steps fit what rounding hides.
constexpr int kSteps = 4;

class Fitter {
 public:
  Fitter(const Int8ChoiceContext& context, const Int8Choice& choice, const Int8Rewrite& nearest,
         PassContext& pass_context)
      : context_(context),
        choice_(choice),
        nearest_(nearest),
        pass_context_(pass_context),
        model_(*context.model),
        edited_(*context.model),
        names_(*context.model) {}

  FittedWeights Run() {
    LayerStream stream(model_, pass_context_, {kSamplesMax, kMacsMax});
    for (size_t i = 0; i < model_.graph.nodes.size(); ++i) {
      const auto site = choice_.weights.find(&model_.graph.nodes[i]);
      if (site == choice_.weights.end() || !CanFit(*site->second)) continue;
      stream.AdvanceTo(i, edited_);
      FitSite(stream, *site->second, i);
    }
    return std::move(fitted_);
  }

 private:
  bool CanFit(const WeightSite& site) const {
    if (site.root.first != &model_.graph || !WhyNoStatistics(site).empty()) return false;
    const auto is_same = [&](const WeightSite& other) { return other.root == site.root; };
    return std::ranges::count_if(context_.scan->sites, is_same) == 1 &&
           context_.index->consumers(site.root.second).size() == 1;
  }

  // Whether the rewriting gives the node a bias that takes up the mean of what is lost.
  bool HasBias(const Node& node) const {
    if (node.op_type == "MatMul") return false;
    if (node.inputs.size() < 3 || node.inputs[2].empty()) return true;
    const Tensor* bias =
        ConstantOf(model_.graph, *context_.index, node.inputs[2], model_.ir_version);
    return bias != nullptr && bias->dtype() == DType::kFloat32;
  }

  void FitSite(const LayerStream& stream, const WeightSite& site, size_t at) {
    const Node& node = model_.graph.nodes[at];
    const WeightScales& scales = nearest_.scales.at(node.outputs[0]);
    FittedWeight fitted{std::vector<int8_t>(static_cast<size_t>(site.stored.count())), {}};
    const bool has_bias = HasBias(node);
    if (has_bias) {
      fitted.mean_loss.resize(static_cast<size_t>(site.layout.groups * site.layout.rows));
    }
    for (const InputPart& part : PartsOf(site)) {
      if (!FitPart(stream, {&site, part, has_bias}, scales, fitted)) return;
    }
    Edit(site, scales, fitted.codes);
    if (has_bias) ShiftBias(fitted.mean_loss, at);
    fitted_.emplace(node.outputs[0], std::move(fitted));
  }

  // False: the part's input is constant, or its Hessian has no factors.
  bool FitPart(const LayerStream& stream, const StatisticsRequest& request,
               const WeightScales& weight_scales, FittedWeight& fitted) const {
    const WeightSite& site = *request.site;
    const auto [group, begin, end] = request.part;
    const std::vector<float> original = PartWeight(site, request.part);
    std::vector<float> scales;
    for (int64_t row = 0; row < site.layout.rows; ++row) {
      scales.push_back(weight_scales.At(site.shape, site.layout.Index(group, row, 0)));
    }
    const auto take = [&](const StatisticsRequest& part) {
      return TakeInt8Statistics(stream, part, original);
    };
    const auto [s, halves] = TakeSplit(stream, request, take);
    if (!s) return false;
    const auto codes =
        CodesOf(*s, original, scales, halves ? DampingOf(*halves, original, scales) : kDamping);
    if (!codes) return false;
    const int64_t k = request.part.size();
    for (int64_t row = 0; row < site.layout.rows; ++row) {
      double loss = s->y_mean[static_cast<size_t>(row)];
      for (int64_t i = 0; i < k; ++i) {
        const int8_t code = (*codes)[static_cast<size_t>(row * k + i)];
        fitted.codes[static_cast<size_t>(site.layout.Index(group, row, begin + i))] = code;
        loss -= s->x_mean[static_cast<size_t>(i)] * code * scales[static_cast<size_t>(row)];
      }
      if (!request.is_centered) continue;
      fitted.mean_loss[static_cast<size_t>(group * site.layout.rows + row)] += loss;
    }
    return true;
  }

  // Of the inputs as the INT8 layer reads them. nullopt: they are constant.
  std::optional<LayerStatistics> TakeInt8Statistics(const LayerStream& stream,
                                                    const StatisticsRequest& request,
                                                    const std::vector<float>& original) const {
    const WeightSite& site = *request.site;
    const int64_t wanted = std::clamp(site.layout.k, kColumnsMin, kColumnsMax);
    std::optional<LayerColumns> columns =
        TakeColumns(stream, {&site, request.part, wanted, request.folds, request.fold, {}, false});
    if (!columns) return std::nullopt;
    RoundToCodes(nearest_.params.at(site.node->inputs[0]), columns->edited);
    if (!request.is_centered) WeightRows(site, original, *columns);
    return StatisticsOf(std::move(*columns), original, request.is_centered);
  }

  double DampingOf(const Halves& halves, const std::vector<float>& all_original,
                   const std::vector<float>& all_scales) const {
    return ChooseRounding(halves, [&](const LayerStatistics& fitted,
                                      const std::vector<int64_t>& rows, double damping) {
      const std::vector<float> original = RowsOf(all_original, fitted.k, rows);
      const std::vector<float> scales = RowsOf(all_scales, 1, rows);
      const auto codes = CodesOf(fitted, original, scales, damping);
      std::optional<std::vector<float>> weight;
      if (!codes) return weight;
      weight.emplace();
      for (size_t i = 0; i < codes->size(); ++i) {
        weight->push_back(static_cast<float>((*codes)[i]) *
                          scales[i / static_cast<size_t>(fitted.k)]);
      }
      return weight;
    });
  }

  // Codes [rows][k] for the samples of `s`; nullopt: the damped Hessian has no factors.
  std::optional<std::vector<int8_t>> CodesOf(const LayerStatistics& s,
                                             const std::vector<float>& original,
                                             const std::vector<float>& scales,
                                             double damping) const {
    if (damping == kNearest) return NearestCodes(original, scales);
    std::vector<bool> zero;
    for (const float weight : original) zero.push_back(weight == 0);
    const std::vector<float> best = SolveMasked({&s, &original, damping, kSteps}, zero, original);
    return RoundSecondOrder({&s, &best, &scales, nearest_.code_max, damping});
  }

  std::vector<int8_t> NearestCodes(const std::vector<float>& original,
                                   const std::vector<float>& scales) const {
    const size_t k = original.size() / scales.size();
    const float most = static_cast<float>(nearest_.code_max);
    std::vector<int8_t> codes;
    for (size_t i = 0; i < original.size(); ++i) {
      codes.push_back(NearestCode(original[i], scales[i / k], most));
    }
    return codes;
  }

  // Makes the squared error of each position count as PositionWeights says.
  static void WeightRows(const WeightSite& site, const std::vector<float>& weight,
                         LayerColumns& columns) {
    const std::vector<float> y = Multiply({columns.count, site.layout.rows, columns.k, false, true},
                                          columns.original, weight);
    const std::vector<double> weights = PositionWeights(site, y, site.layout.rows);
    const size_t k = static_cast<size_t>(columns.k);
    for (size_t i = 0; i < columns.edited.size(); ++i) {
      const float factor = static_cast<float>(std::sqrt(weights[i / k]));
      columns.original[i] *= factor;
      columns.edited[i] *= factor;
    }
  }

  void Edit(const WeightSite& site, const WeightScales& scales, const std::vector<int8_t>& codes) {
    std::vector<float> stored(codes.size());
    for (size_t i = 0; i < codes.size(); ++i) {
      const int64_t viewed = static_cast<int64_t>(i);
      stored[static_cast<size_t>(site.StoredIndex(viewed))] =
          static_cast<float>(codes[i]) * scales.At(site.shape, viewed);
    }
    ReplaceConstants(edited_, {{{&edited_.graph, site.root.second},
                                Tensor::Make(site.stored.shape(), std::move(stored))}});
  }

  // Gemm and Conv without a bias get one.
  void ShiftBias(const std::vector<double>& shift, size_t at) {
    Node& node = edited_.graph.nodes[at];
    std::vector<float> bias(shift.begin(), shift.end());
    node.inputs.resize(3);
    if (!node.inputs[2].empty()) {
      const Tensor* old =
          ConstantOf(model_.graph, *context_.index, node.inputs[2], model_.ir_version);
      const std::span<const float> values = old->data<float>();
      if (values.size() != 1 && values.size() != bias.size()) return;
      for (size_t i = 0; i < bias.size(); ++i) bias[i] += values[values.size() == 1 ? 0 : i];
    }
    node.inputs[2] = names_.Make(node.outputs[0] + "_fitted_bias");
    const Shape shape = {std::ssize(bias)};
    edited_.graph.initializers.set(node.inputs[2],
                                   {Tensor::Make<float>(shape, std::move(bias)), ""});
  }

  const Int8ChoiceContext& context_;
  const Int8Choice& choice_;
  const Int8Rewrite& nearest_;
  PassContext& pass_context_;
  const Model& model_;
  Model edited_;
  FreshNames names_;
  FittedWeights fitted_;
};

}  // namespace

FittedWeights FitInt8Weights(const Int8ChoiceContext& context, const Int8Choice& choice,
                             const Int8Rewrite& nearest, PassContext& pass_context) {
  // Scales and zero points stand in the model that they are rounded by.
  const Json request = {{"excluded", ExcludedPlaces(context)},
                        {"nearest", pass_context.shared ? ModelDigest(nearest.model) : ""}};
  return *Shared(
      {"fitted weights", *context.model, request}, pass_context,
      [&] { return Fitter(context, choice, nearest, pass_context).Run(); },
      [](const FittedWeights& fitted) {
        size_t bytes = 0;
        for (const auto& [node, f] : fitted) bytes += f.codes.size() + 8 * f.mean_loss.size();
        return static_cast<int64_t>(bytes);
      });
}

}  // namespace pared
