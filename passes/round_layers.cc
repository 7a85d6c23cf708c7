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
  ForEachWeight(site, WholeGroup(site, 0), [&](size_t at, size_t in) { stored[in] = weight[at]; });
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

// A layer's rounding so far, over its parts.
struct RoundedLayer {
  BlockMatrix matrix;
  double signal = 0, nearest = 0, error = 0;
  std::optional<double> damping;  // of the last part that it helped
};

// Codes and scales of `part`, which begins with a block.
void Put(const BlockMatrix& made, const InputPart& part, BlockMatrix& whole) {
  for (int64_t row = 0; row < whole.rows; ++row) {
    std::copy_n(made.codes.begin() + row * made.k, made.k,
                whole.codes.begin() + row * whole.k + part.begin);
    const int64_t block = row * whole.blocks() + part.begin / whole.form.block_size;
    std::copy_n(made.scales.begin() + row * made.blocks(), made.blocks(),
                whole.scales.begin() + block);
  }
}

void RoundPart(const SplitStatistics& split, const std::vector<float>& weight,
               const InputPart& part, double damping, RoundedLayer& layer) {
  const LayerStatistics& s = *split.all;
  const BlockForm& form = layer.matrix.form;
  if (damping == 0) damping = split.halves ? DampingOf(*split.halves, weight, form) : kOneSample;
  const double nearest = SquaredErrorOf(s, RoundToNearest({weight, s.k, 1}, form).Decoded());
  std::optional<BlockMatrix> better;
  if (damping != kNearest) better = RoundedBy(s, weight, damping, form);
  const double error = better ? SquaredErrorOf(s, better->Decoded()) : nearest;
  layer.signal += std::accumulate(s.y_square.begin(), s.y_square.end(), 0.0);
  layer.nearest += nearest;
  layer.error += std::min(error, nearest);
  if (error >= nearest) return;
  layer.damping = damping;
  Put(*better, part, layer.matrix);
}

}  // namespace

RoundedLayers RoundLayers(const Model& model, const std::vector<const WeightSite*>& sites,
                          const LayerRounding& rounding, PassContext& context) {
  RoundedLayers rounded;
  Json& report = context.report["rounded"] = Json::array();
  Model edited = model;
  LayerStream stream(model, context, {kSamplesMax, kMacsMax, kLiveBytes});
  for (const WeightSite* site : sites) {
    const std::string label = NodeLabel(*site->node);
    TellLayer(context, label, report.size() + 1, sites.size());
    stream.AdvanceTo(static_cast<size_t>(site->node - model.graph.nodes.data()), edited);
    CheckFinite(site->stored, site->root.second);
    const std::vector<float> whole = PartWeight(*site, WholeGroup(*site, 0));
    RoundedLayer layer = {RoundToNearest({whole, site->layout.k, 1}, rounding.form), 0, 0, 0, {}};
    const std::vector<InputPart> parts = PartsOf(*site, rounding.form.block_size);
    bool is_seen = false;
    for (const InputPart& part : parts) {
      if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while rounding");
      const SplitStatistics split = TakeSplit(stream, {.site = site, .part = part});
      if (!split.all) break;
      TellLeftOut(label, site->node->inputs[0],
                  {split.all->left_out, split.all->left_out + split.all->count}, context);
      RoundPart(split, PartWeight(*site, part), part, rounding.damping, layer);
      is_seen = true;
    }
    if (is_seen) {
      Json& said =
          report.emplace_back(Json{{"node", label},
                                   {"output_sqnr_db_nearest", SqnrDb(layer.signal, layer.nearest)},
                                   {"output_sqnr_db", SqnrDb(layer.signal, layer.error)}});
      said["damping"] = layer.damping ? Json(*layer.damping) : Json();
      if (parts.size() > 1) said["input_parts"] = parts.size();
    }
    if (layer.damping) rounded[site->root] = layer.matrix;
    ReplaceConstants(
        edited, {{{&edited.graph, site->root.second}, Restored(*site, layer.matrix.Decoded())}});
  }
  return rounded;
}

}  // namespace pared
