#include "passes/int8_lost.h"

#include <cmath>
#include <string>
#include <vector>

namespace pared {
namespace {

constexpr double kWeakRatio = 0.1;  // noise to energy: 10 dB

struct ChannelCounts {
  int64_t all = 0, zero = 0, weak = 0;
};

// Of the weight's output channels, where every element goes to the nearest multiple of the scale:
// there is one for all, or one for each row of all groups.
ChannelCounts CountLost(const WeightSite& site, const std::vector<float>& scales) {
  const std::vector<float> elements = ViewedElements(site);
  const MatrixLayout& layout = site.layout;
  ChannelCounts counts;
  for (int64_t group = 0; group < layout.groups; ++group) {
    for (int64_t row = 0; row < layout.rows; ++row) {
      double energy = 0, noise = 0, kept = 0;
      const double scale = static_cast<double>(scales[static_cast<size_t>(row) % scales.size()]);
      for (int64_t k = 0; k < layout.k; ++k) {
        const double w =
            static_cast<double>(elements[static_cast<size_t>(layout.Index(group, row, k))]);
        const double code = std::nearbyint(w / scale);
        energy += w * w;
        noise += (w - code * scale) * (w - code * scale);
        kept += std::fabs(code);
      }
      ++counts.all;
      if (energy == 0) continue;  // nothing to lose
      if (kept == 0) {
        ++counts.zero;
      } else if (noise > kWeakRatio * energy) {
        ++counts.weak;
      }
    }
  }
  return counts;
}

}  // namespace

void WarnOfLostChannels(const Int8Found& found, Json& report) {
  for (const Node& node : found.candidate->model.graph.nodes) {
    const auto weight = found.candidate->choice.weights.find(&node);
    if (weight == found.candidate->choice.weights.end()) continue;
    const auto scales = found.best.scales.find(node.outputs[0]);
    if (scales == found.best.scales.end()) continue;
    const WeightSite& site = *weight->second;
    const bool is_shared = !scales->second.axis;
    const bool is_stack = node.op_type == "MatMul" && site.shape.size() > 2;
    if (!is_shared && !is_stack) continue;
    const ChannelCounts counts = CountLost(site, scales->second.scales);
    if (counts.zero + counts.weak == 0) continue;
    const std::string which = is_shared ? "for its weight" : "for a column of all its matrices";
    const std::string remedy = is_shared ? "granularity per_channel keeps" : "excluded it keeps";
    report["warnings"].push_back(
        NodeLabel(node) + ": with one scale " + which + ", of " + std::to_string(counts.all) +
        " channels " + std::to_string(counts.zero) + " become zero and " +
        std::to_string(counts.weak) + " keep less than 10 dB; " + remedy + " them");
  }
}

}  // namespace pared
