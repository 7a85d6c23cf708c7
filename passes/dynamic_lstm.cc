#include "passes/dynamic_lstm.h"

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "passes/int8_params.h"

namespace pared {

std::string WhyNoDynamicLstm(const WeightSite& site) {
  if (site.node->Int("layout", 0) != 0) return "its batch comes first, which no integer form takes";
  return "";
}

void KeepLstmsWhole(StoredWeights& weights) {
  while (true) {
    std::unordered_map<const Node*, int> quantized;
    for (const auto& [root, stored] : weights) {
      for (const WeightSite* site : stored.sites) {
        if (stored.reason.empty() && IsRecurrent(*site->node)) ++quantized[site->node];
      }
    }
    bool is_settled = true;
    for (auto& [root, stored] : weights) {
      for (const WeightSite* site : stored.sites) {
        if (!stored.reason.empty() || !IsRecurrent(*site->node)) continue;
        if (quantized.at(site->node) == 2) continue;
        stored.reason = "another weight of " + NodeLabel(*site->node) + " stays float";
        is_settled = false;
      }
    }
    if (is_settled) return;
  }
}

WeightCodes CodeLstm(const WeightSite& site, float code_max) {
  const int64_t directions = site.shape[0], rows = site.shape[1], k = site.shape[2];
  const Tensor stacked = Tensor::Make<float>({directions * rows, k}, ViewedElements(site));
  const WeightCodes by_row = CodeChannels(stacked, 0, code_max);
  const std::span<const int8_t> codes = by_row.codes.data<int8_t>();
  std::vector<int8_t> turned(codes.size());
  for (int64_t row = 0; row < directions * rows; ++row) {
    const int64_t first = row / rows * rows * k + row % rows;
    for (int64_t i = 0; i < k; ++i) {
      turned[static_cast<size_t>(first + i * rows)] = codes[static_cast<size_t>(row * k + i)];
    }
  }
  const std::vector<int8_t> zeros(static_cast<size_t>(directions * rows), 0);
  return {.codes = Tensor::Make<int8_t>({directions, k, rows}, std::move(turned)),
          .scales = by_row.scales.Reshaped({directions, rows}),
          .zero_points = Tensor::Make<int8_t>({directions, rows}, zeros)};
}

Node MakeDynamicLstm(const Node& node, const std::array<CodeNames, 2>& weights) {
  constexpr size_t kFloatInputs = 8;  // of an LSTM; behind them stand scales and zero points
  Node made = node;
  made.op_type = "DynamicQuantizeLSTM";
  made.domain = "com.microsoft";
  made.attributes.erase_if(
      [](const std::string& name, const Attribute&) { return name == "layout"; });
  made.inputs.resize(kFloatInputs);
  for (size_t i = 0; i < weights.size(); ++i) {
    made.inputs[i + 1] = weights[i].codes;
    made.inputs.push_back(weights[i].scale);
    made.inputs.push_back(weights[i].zero_point);
  }
  return made;
}

}  // namespace pared
