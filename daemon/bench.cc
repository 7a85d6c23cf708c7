// `pared bench MODEL`: where the time goes, layer by layer, which kernel was chosen and why, what
// sparsity gains, and how far each layer is from the float model's.

#include <algorithm>
#include <iomanip>
#include <limits>
#include <optional>
#include <ostream>
#include <sstream>
#include <string>

#include "daemon/arguments.h"
#include "daemon/commands.h"
#include "evaluator/dataset.h"
#include "evaluator/executor.h"
#include "evaluator/layers.h"
#include "kernels/cpu.h"
#include "model/onnx.h"
#include "model/tflite.h"

namespace pared {
namespace {

struct BenchOptions {
  std::string model, dataset, reference;
  int64_t runs = 20;
  int64_t threads = 1;
  bool fuse = true;
  bool json = false;
};

void Fields(FieldVisitor& f, BenchOptions& o) {
  f.Required();
  f.Text("model", o.model, TextRule::kAny, "The model's file, ONNX or TensorFlow Lite.");
  f.Text("dataset", o.dataset, TextRule::kAny,
         "A dataset's folder; its first sample is run. Random values where it is not given.");
  f.Text("reference", o.reference, TextRule::kAny,
         "The float model it was made of: adds each layer's SQNR on that sample.");
  f.Integer("runs", o.runs, {1, 100'000}, "Timed runs.");
  f.Integer("threads", o.threads, {1, 1024}, "Threads of a run.");
  f.Flag("fuse", o.fuse, "Fuse for INT8; false runs every node as ONNX defines it.");
  f.Flag("json", o.json, "Write JSON in place of the table.");
}

struct Layer {
  LayerStats stats;
  double share = 0;                     // of the total time
  std::optional<double> measured_gain;  // over the dense kernel; nothing where it is dense
  std::optional<double> sqnr_db;
};

bool IsSparse(const LayerStats& layer) { return layer.kernel.starts_with("sparse"); }

// Time over that with dense kernels alone, of layers that run sparse ones: the least of `runs` runs
// of each, interleaved, so that a disturbance meets both.
void MeasureGains(const Model& model, const ExecutorOptions& options, const Executor& executor,
                  const std::vector<Tensor>& inputs, int64_t runs, std::vector<Layer>& layers) {
  if (std::none_of(layers.begin(), layers.end(),
                   [](const Layer& layer) { return IsSparse(layer.stats); })) {
    return;
  }
  ExecutorOptions dense_options = options;
  dense_options.sparse = false;
  const Executor dense(model, dense_options);
  constexpr double kNever = std::numeric_limits<double>::infinity();
  std::vector<double> own(layers.size(), kNever), other(layers.size(), kNever);
  for (int64_t run = 0; run < runs; ++run) {
    const std::vector<LayerStats> a = executor.Profile(inputs, 1), b = dense.Profile(inputs, 1);
    for (size_t i = 0; i < layers.size(); ++i) {
      own[i] = std::min(own[i], a[i].time_ms);
      other[i] = std::min(other[i], b[i].time_ms);
    }
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    if (IsSparse(layers[i].stats)) layers[i].measured_gain = other[i] / own[i];
  }
}

Json OrNull(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

// docs/commands.md says what these are.
Json LayerJson(const Layer& layer) {
  const LayerStats& stats = layer.stats;
  return {{"node", stats.node},
          {"op_type", stats.op_type},
          {"shape", stats.shape},
          {"kernel", stats.kernel},
          {"reason", stats.reason},
          {"density", stats.density},
          {"macs", stats.macs},
          {"time_ms", stats.time_ms},
          {"time_share", layer.share},
          {"predicted_gain", IsSparse(stats) ? Json(stats.predicted_gain) : Json(nullptr)},
          {"measured_gain", OrNull(layer.measured_gain)},
          {"sqnr_db", OrNull(layer.sqnr_db)}};
}

std::string Cell(const std::optional<double>& value) {
  if (!value) return "-";
  std::ostringstream text;
  text << std::fixed << std::setprecision(2) << *value;
  return text.str();
}

void WriteTable(const std::vector<Layer>& layers, std::ostream& out) {
  out << std::left << std::setw(20) << "op" << std::setw(24) << "kernel" << std::right
      << std::setw(9) << "density" << std::setw(14) << "macs" << std::setw(11) << "ms"
      << std::setw(8) << "%" << std::setw(9) << "GMAC/s" << std::setw(8) << "gain" << std::setw(10)
      << "predicted" << std::setw(9) << "SQNR dB"
      << "  node\n";
  for (const Layer& layer : layers) {
    const LayerStats& stats = layer.stats;
    const double rate =
        stats.time_ms == 0 ? 0 : static_cast<double>(stats.macs) / stats.time_ms / 1e6;
    out << std::left << std::setw(20) << stats.op_type << std::setw(24) << stats.kernel
        << std::right << std::fixed << std::setprecision(2) << std::setw(9) << stats.density
        << std::setw(14) << stats.macs << std::setprecision(4) << std::setw(11) << stats.time_ms
        << std::setprecision(1) << std::setw(8) << 100 * layer.share << std::setw(9) << rate
        << std::setw(8) << Cell(layer.measured_gain) << std::setw(10)
        << Cell(IsSparse(stats) ? std::optional(stats.predicted_gain) : std::nullopt)
        << std::setw(9) << Cell(layer.sqnr_db) << "  " << stats.node << ' '
        << ShapeText(stats.shape) << "\n";
  }
}

}  // namespace

void RunBench(const std::vector<std::string>& arguments, std::ostream& out) {
  const auto options = ReadArguments<BenchOptions>(arguments);
  ExecutorOptions executor_options;
  executor_options.threads = options.threads;
  executor_options.fuse = options.fuse;
  const Model model = LoadModel(options.model);
  const Executor executor(model, executor_options);
  const Dataset dataset = OpenDataset(options.dataset, executor.inputs());
  const std::vector<Tensor> inputs = dataset.Sample(0, executor.inputs());
  executor.Profile(inputs, 2);  // caches and pages are warm from here on
  std::vector<Layer> layers;
  double total_ms = 0;
  for (LayerStats& stats : executor.Profile(inputs, options.runs)) {
    total_ms += stats.time_ms;
    layers.emplace_back().stats = std::move(stats);
  }
  for (Layer& layer : layers) layer.share = total_ms == 0 ? 0 : layer.stats.time_ms / total_ms;
  MeasureGains(model, executor_options, executor, inputs, options.runs, layers);
  if (!options.reference.empty()) {
    std::vector<LayerStats> stats;
    for (const Layer& layer : layers) stats.push_back(layer.stats);
    const auto sqnr_db = LayerSqnr(model, LoadModel(options.reference), inputs, stats);
    for (Layer& layer : layers) {
      const auto found = sqnr_db.find(layer.stats.node);
      if (found != sqnr_db.end()) layer.sqnr_db = found->second;
    }
  }
  if (options.json) {
    Json list = Json::array();
    for (const Layer& layer : layers) list.push_back(LayerJson(layer));
    out << DumpJson({{"model", options.model},
                     {"cpu", CpuName()},
                     {"isa", IsaName(SelectedIsa())},
                     {"threads", options.threads},
                     {"runs", options.runs},
                     {"total_ms", total_ms},
                     {"peak_activation_bytes", executor.peak_activation_bytes()},
                     {"layers", list}})
        << "\n";
    return;
  }
  WriteTable(layers, out);
  out << "total " << std::setprecision(4) << total_ms << " ms, activations "
      << executor.peak_activation_bytes() << " bytes, " << IsaName(SelectedIsa()) << ", "
      << options.threads << (options.threads == 1 ? " thread, " : " threads, ") << CpuName()
      << "\n";
}

Json BenchFlags() { return DescribeFields<BenchOptions>(); }

}  // namespace pared
