#include "passes/round_layers.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "passes/calibrate.h"
#include "passes/choose_damping.h"
#include "passes/layer_progress.h"
#include "passes/layer_statistics.h"
#include "passes/left_out.h"

namespace pared {
namespace {

constexpr int64_t kSamplesMax = 128;
constexpr int64_t kMacsMax = int64_t{1} << 38;  // of all samples in one model
constexpr double kOneSample = 1;                // damping, where no other sample tells
constexpr int64_t kLiveBytes = int64_t{1} << 29;

// The stored constant with the elements that `weight` [rows][k] stands for.
Tensor Restored(const WeightSite& site, const std::vector<float>& weight) {
  std::vector<float> stored(weight.size());
  ForEachWeight(site, 0, [&](size_t at, size_t in) { stored[in] = weight[at]; });
  return Tensor::Make<float>(site.stored.shape(), std::move(stored));
}

// What to round: weights that make up for the layers rounded before. Pulled to the original ones as
// hard as the samples pull the other way, for the next samples are others.
std::vector<float> StartOf(const LayerStatistics& s, const std::vector<float>& weight) {
  constexpr double kPull = 1;
  std::vector<bool> zero(weight.size());
  for (size_t i = 0; i < weight.size(); ++i) zero[i] = weight[i] == 0;
  return SolveMasked({&s, &weight, kPull}, zero, weight);
}

std::optional<BlockMatrix> RoundedBy(const LayerStatistics& s, const std::vector<float>& weight,
                                     double damping, const BlockForm& form) {
  if (damping == kNearest) return RoundToNearest({weight, s.k, 1}, form);
  const std::vector<float> start = StartOf(s, weight);
  return RoundSecondOrder({&s, &start, damping}, form);
}

double DampingOf(const Halves& halves, const std::vector<float>& all, const BlockForm& form) {
  return ChooseRounding(
      halves, [&](const LayerStatistics& fitted, const std::vector<int64_t>& rows, double damping) {
        const auto made = RoundedBy(fitted, RowsOf(all, fitted.k, rows), damping, form);
        return made ? std::optional(made->Decoded()) : std::nullopt;
      });
}

}  // namespace

RoundedLayers RoundLayers(const Model& model, const std::vector<const WeightSite*>& sites,
                          const LayerRounding& rounding, PassContext& context) {
  RoundedLayers rounded;
  Json& report = context.report["rounded"] = Json::array();
  Model edited = model;
  LayerStream stream(model, context, {kSamplesMax, kMacsMax, kLiveBytes});
  for (const WeightSite* site : sites) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while rounding");
    TellLayer(context, NodeLabel(*site->node), report.size() + 1, sites.size());
    stream.AdvanceTo(static_cast<size_t>(site->node - model.graph.nodes.data()), edited);
    CheckFinite(site->stored, site->root.second);
    const std::vector<float> weight = GroupWeight(*site, 0);
    BlockMatrix made = RoundToNearest({weight, site->layout.k, 1}, rounding.form);
    const StatisticsRequest request = {site, 0, false};
    const auto [s, halves] = TakeSplit(stream, request);
    if (s) {
      TellLeftOut(NodeLabel(*site->node), site->node->inputs[0],
                  {s->left_out, s->left_out + s->count}, context);
      double damping = rounding.damping;
      if (damping == 0) damping = halves ? DampingOf(*halves, weight, rounding.form) : kOneSample;
      const double signal = std::accumulate(s->y_square.begin(), s->y_square.end(), 0.0);
      const double nearest = SquaredErrorOf(*s, made.Decoded());
      std::optional<BlockMatrix> better;
      if (damping != kNearest) better = RoundedBy(*s, weight, damping, rounding.form);
      const double error = better ? SquaredErrorOf(*s, better->Decoded()) : nearest;
      Json& said =
          report.emplace_back(Json{{"node", NodeLabel(*site->node)},
                                   {"output_sqnr_db_nearest", SqnrDb(signal, nearest)},
                                   {"output_sqnr_db", SqnrDb(signal, std::min(error, nearest))}});
      said["damping"] = error < nearest ? Json(damping) : Json();
      if (error < nearest) {
        made = std::move(*better);
        rounded[site->root] = made;
      }
    }
    ReplaceConstants(edited,
                     {{{&edited.graph, site->root.second}, Restored(*site, made.Decoded())}});
  }
  return rounded;
}

}  // namespace pared
