#include "daemon/layer_report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/layers.h"
#include "model/onnx.h"

namespace pared {
namespace {

constexpr size_t kLayersMax = 256;  // about 40 kB of JSON

// What is stored for good needs no digits that the next measurement changes.
double Rounded(double value, int digits) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.*g", digits, value);
  return std::strtod(text, nullptr);
}

void Put(const char* name, const std::optional<double>& value, int digits, Json& json) {
  if (value) json[name] = Rounded(*value, digits);
}

// The places of those that are kept, in order: by work, then by time.
std::vector<size_t> Chosen(const std::vector<LayerStats>& layers) {
  std::vector<size_t> places(layers.size());
  std::iota(places.begin(), places.end(), size_t{0});
  std::ranges::stable_sort(places, [&](size_t a, size_t b) {
    if (layers[a].macs != layers[b].macs) return layers[a].macs > layers[b].macs;
    return layers[a].time_ms > layers[b].time_ms;
  });
  places.resize(std::min(places.size(), kLayersMax));
  std::ranges::sort(places);
  return places;
}

Json LayerJson(const LayerStats& layer, const LayerScales& scales, bool is_timed) {
  Json json = {{"node", layer.node}, {"op_type", layer.op_type}};
  if (!layer.kernel.empty()) json["kernel"] = layer.kernel;
  if (layer.macs > 0) {
    json["macs"] = layer.macs;
    json["density"] = Rounded(layer.density, 4);
  }
  if (is_timed) json["time_us"] = Rounded(1000 * layer.time_ms, 4);
  Put("input_scale", scales.input, 7, json);
  Put("output_scale", scales.output, 7, json);
  Put("weight_scale_min", scales.weight_min, 7, json);
  Put("weight_scale_max", scales.weight_max, 7, json);
  return json;
}

}  // namespace

Json LayerReport(const std::filesystem::path& path, const LayerReportContext& context) {
  const Model model = LoadOnnx(path);
  ExecutorOptions options;
  options.threads = context.threads;
  const Executor executor(model, options);
  const std::vector<Tensor> inputs = context.dataset->Sample(0, executor.inputs());
  // The first run warms caches up; where there are no more, it tells the work of each layer.
  std::vector<LayerStats> layers = executor.Profile(inputs, 1);
  if (context.runs > 0) layers = executor.Profile(inputs, context.runs);
  const std::map<std::string, LayerScales> scales = ScalesOf(model);
  std::map<std::string, double> sqnr_db;
  if (context.reference != nullptr) {
    sqnr_db = LayerSqnr(model, *context.reference, inputs, layers);
  }
  Json list = Json::array();
  for (const size_t place : Chosen(layers)) {
    const LayerStats& layer = layers[place];
    const auto scale = scales.find(layer.node);
    Json json =
        LayerJson(layer, scale == scales.end() ? LayerScales() : scale->second, context.runs > 0);
    if (const auto db = sqnr_db.find(layer.node); db != sqnr_db.end()) {
      json["sqnr_db"] = Rounded(db->second, 4);
    }
    list.push_back(std::move(json));
  }
  const size_t left_out = layers.size() - list.size();
  return {{"layers", std::move(list)}, {"layers_left_out", left_out}};
}

}  // namespace pared
