#include "passes/int8_fidelity.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <iterator>
#include <sstream>

#include "base/error.h"
#include "model/rewrite.h"
#include "passes/calibrate.h"
#include "passes/held_selections.h"
#include "passes/shared_statistics.h"
#include "passes/weights.h"

namespace pared {
namespace {

constexpr int64_t kSensitivitySamples = 4;
constexpr size_t kJudgedAtOnce = 4;  // samples
constexpr int64_t kKnownBytesMax = 256 << 20;

std::vector<int64_t> Spread(int64_t count, int64_t most) {
  std::vector<int64_t> samples;
  const int64_t taken = std::min(count, most);
  for (int64_t i = 0; i < taken; ++i) samples.push_back(i * count / taken);
  return samples;
}

// The float model with an INT8 twin of each compute node. An executor has to watch both.
struct Twins {
  Model model;
  std::map<std::string, std::string> originals;  // by twin
  std::unordered_set<std::string> compared;      // originals that have a twin
};

Twins MakeTwins(const Model& model, const Int8Choice& choice, const Model& quantized) {
  Twins twins{model, {}, {}};
  std::unordered_set<std::string> present;
  for (const Node& node : model.graph.nodes) {
    present.insert(node.outputs.begin(), node.outputs.end());
    if (choice.RoleOf(node) != Int8Role::kCompute) continue;
    twins.compared.insert(node.outputs[0]);
  }
  FreshNames names(quantized);
  for (const auto& [name, initializer] : quantized.graph.initializers) {
    twins.model.graph.initializers.set(name, initializer);
  }
  for (Node node : quantized.graph.nodes) {
    const bool is_compute = twins.compared.contains(node.outputs[0]);
    // What quantization or smoothing added is needed; the rest the float model has.
    if (!is_compute && present.contains(node.outputs[0])) continue;
    if (is_compute) {
      const std::string twin = names.Make(node.outputs[0] + "_twin");
      twins.originals[twin] = node.outputs[0];
      node.outputs[0] = twin;
      node.name = names.Make(node.name + "_twin");
    }
    twins.model.graph.nodes.push_back(std::move(node));
  }
  return twins;
}

// What a model in half precision makes.
Tensor AsFloat32(const Tensor& tensor) {
  if (tensor.dtype() != DType::kFloat16 && tensor.dtype() != DType::kBFloat16) return tensor;
  return Tensor::Make<float>(tensor.shape(), ToFloat(tensor));
}

}  // namespace

void Fidelity::Add(const Tensor& want, const Tensor& got) {
  if (got.dtype() != DType::kFloat32) {
    throw Error(ErrorCode::kInternal, "the quantized model has outputs of another type");
  }
  const auto a = want.data<float>(), b = got.data<float>();
  // Where a length that the model computes differs, nothing is left.
  const bool is_comparable = want.shape() == got.shape();
  for (size_t i = 0; i < a.size(); ++i) {
    if (!std::isfinite(a[i])) continue;  // a mask of -inf is no signal
    const double signal = a[i], error = is_comparable ? signal - static_cast<double>(b[i]) : signal;
    energy += signal * signal;
    noise += std::isfinite(error) ? error * error : 1e30;
  }
}

double Fidelity::sqnr_db() const {
  if (noise == 0) return kEqualDb;
  if (energy == 0) return -kEqualDb;
  return std::clamp(10 * std::log10(energy / noise), -kEqualDb, kEqualDb);
}

void WarnOfCollapse(double sqnr_db, Json& report, const std::string& remedy) {
  constexpr double kCollapsedDb = 3;
  if (sqnr_db >= kCollapsedDb) return;
  std::ostringstream text;
  text << "the result has collapsed: its worst output has " << std::setprecision(3) << sqnr_db
       << " dB SQNR on the calibration data; " << remedy;
  report["warnings"].push_back(text.str());
}

// Of If, that the graph computes.
static std::vector<std::string> ConditionsOf(const Graph& graph) {
  const GraphIndex index(graph);
  std::vector<std::string> conditions;
  for (const Node& node : graph.nodes) {
    if (node.op_type == "If" && index.producer(node.inputs[0]) != nullptr) {
      conditions.push_back(node.inputs[0]);
    }
  }
  return conditions;
}

static void AddMissing(std::vector<std::string>& to, const std::vector<std::string>& values) {
  std::ranges::copy_if(values, std::back_inserter(to), [&](const std::string& value) {
    return std::ranges::find(to, value) == to.end();
  });
}

KeptValues JudgedOf(const Model& model, const PassContext& context, int64_t samples_max) {
  KeptValues judged = {JudgedValues(model.graph), Spread(CalibrationCount(context), samples_max)};
  AddMissing(judged.values, ConditionsOf(model.graph));
  AddMissing(judged.values, FindSelections(model, judged.values));
  AddMissing(judged.values, StoodForOutputs(model.graph));
  return judged;
}

FidelityJudge::FidelityJudge(const Model& model, PassContext& context, KeptValues judged)
    : context_(context),
      samples_(judged.samples),
      stood_for_(StoodForOutputs(model.graph)),
      judged_(judged.values),
      conditions_(ConditionsOf(model.graph)) {
  // What is judged is not at the same time stood for.
  std::erase_if(judged_, [&](const std::string& value) {
    return std::ranges::find(stood_for_, value) != stood_for_.end();
  });
  for (const std::string& value : JudgedValues(model.graph)) {
    if (!IsAmong(model.graph.outputs, value)) within_.push_back(value);
  }
  const auto watch = [&] { return Seen(model, judged); };
  const auto bytes = [](const std::vector<Values>& samples) {
    size_t sum = 0;
    for (const Values& values : samples) {
      for (const auto& [value, tensor] : values) sum += tensor.bytes().size();
    }
    return static_cast<int64_t>(sum);
  };
  wanted_ = Shared({"outputs", model, {{"samples", samples_}, {"values", judged_}}}, context, watch,
                   bytes);
  for (const Values& values : *wanted_) {
    for (const auto& [value, tensor] : values) {
      if (tensor.dtype() != DType::kFloat32) continue;
      Fidelity fidelity;
      fidelity.Add(tensor, tensor);
      energies_[value] += fidelity.energy;
      tensor.DropPages();
    }
  }
  Hold(model);
}

// The selections that judged floats follow from.
void FidelityJudge::Hold(const Model& model) {
  if (wanted_->empty()) return;
  std::vector<std::string> floats;
  for (const auto& [value, tensor] : wanted_->front()) {
    if (tensor.dtype() == DType::kFloat32) floats.push_back(value);
  }
  const std::vector<std::string> selections = FindSelections(model, floats);
  const bool are_places = std::ranges::all_of(selections, [&](const std::string& places) {
    const auto found = wanted_->front().find(places);
    return found != wanted_->front().end() && found->second.dtype() == DType::kInt64;
  });
  if (are_places) held_ = selections;
}

// What was seen, where that is all; else the samples are run.
std::vector<FidelityJudge::Values> FidelityJudge::Seen(const Model& model,
                                                       KeptValues& judged) const {
  Graph graph = model.graph;
  KeepWatched(graph);
  const auto is_usable = [&](const Values& values) {
    return std::ranges::all_of(graph.outputs, [&](const ValueInfo& output) {
      const auto found = values.find(output.name);
      if (found == values.end()) return false;
      // Codes may lie as integer kernels lay them out.
      const DType dtype = found->second.dtype();
      return dtype != DType::kUInt8 && dtype != DType::kInt8;
    });
  };
  if (judged.seen.empty() || !std::ranges::all_of(judged.seen, is_usable)) {
    return Watch(Watching(model), 0, samples_.size());
  }
  for (Values& values : judged.seen) {
    for (auto& [value, tensor] : values) tensor = AsFloat32(tensor);
  }
  return std::move(judged.seen);
}

// With the kernels that a result runs on: integer ones where they are. What follows the judged
// values is left out: a NonMaxSuppression may take longer than all before it.
FidelityJudge::Watched FidelityJudge::Watching(Model model) const {
  FeedSelections(model, held_);
  KeepWatched(model.graph);
  std::vector<std::string> fed;
  if (known_ != nullptr) fed = known_->Feed(model);
  return {Executor(model, {.seed = context_.seed}), std::move(fed)};
}

void FidelityJudge::Remember(Model model) {
  KeepWatched(model.graph);
  known_ = std::make_unique<const KnownValues>(model, context_, samples_, kKnownBytesMax);
}

void FidelityJudge::KeepWatched(Graph& graph) const {
  std::unordered_set<std::string> known;
  for (const Node& node : graph.nodes) known.insert(node.outputs.begin(), node.outputs.end());
  for (const ValueInfo& output : graph.outputs) known.insert(output.name);
  std::vector<std::string> values;
  for (const std::vector<std::string>& watched : {judged_, stood_for_}) {
    std::ranges::copy_if(watched, std::back_inserter(values),
                         [&](const std::string& value) { return known.contains(value); });
  }
  KeepPart(graph, values);
}

// The judged values of each of `count` samples.
std::vector<FidelityJudge::Values> FidelityJudge::Watch(const Watched& watched, size_t begin,
                                                        size_t count) const {
  std::vector<Values> seen(count);
  const Executor& executor = watched.executor;
  std::vector<ValueInfo> inputs = executor.inputs();
  inputs.resize(inputs.size() - held_.size() - watched.fed.size());  // these are the last
  tbb::parallel_for(size_t{0}, count, [&](size_t at) {
    if (context_.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while measuring");
    std::vector<Tensor> feeds = context_.calibration->Sample(samples_[begin + at], inputs);
    for (const std::string& places : held_) {
      feeds.push_back((*wanted_)[begin + at].at(places));
    }
    for (const std::string& value : watched.fed) feeds.push_back(known_->at(begin + at, value));
    const std::vector<Tensor> results = executor.Run(feeds);
    for (size_t i = 0; i < results.size(); ++i) {
      seen[at][executor.outputs()[i].name] = AsFloat32(results[i]);
    }
  });
  return seen;
}

bool FidelityJudge::has_signal() const {
  return std::ranges::any_of(energies_, [](const auto& entry) { return entry.second > 0; });
}

void FidelityJudge::Report(const Nearness& nearness, Json& report,
                           const std::string& remedy) const {
  if (nearness.sqnr_db == kEqualDb && !has_signal()) {
    report["warnings"].push_back(
        "there is no SQNR: on the calibration data every output is empty, zero or not of floats, "
        "so that nothing was compared");
    return;
  }
  report["calibration_sqnr_db"] = nearness.sqnr_db;
  if (!within_.empty()) report["judged_values"] = within_;
  const auto is_compared = [&](const std::string& output) { return energies_.contains(output); };
  if (std::ranges::any_of(stood_for_, is_compared)) {
    report["calibration_output_sqnr_db"] = nearness.output_db;
  }
  WarnOfCollapse(nearness.sqnr_db, report, remedy);
}

bool FidelityJudge::HasTurned(const Values& wanted, const Values& got) const {
  return std::ranges::any_of(conditions_, [&](const std::string& condition) {
    const auto before = wanted.find(condition), after = got.find(condition);
    return before != wanted.end() && after != got.end() &&
           before->second.data<bool>()[0] != after->second.data<bool>()[0];
  });
}

Nearness FidelityJudge::Compare(const Model& candidate, double least_db) const {
  const Watched watched = Watching(candidate);
  // Samples run so far add to the noise; the signal of all is known.
  std::map<std::string, double> noises, energies = energies_;
  size_t turned = 0;
  Nearness worst = {kEqualDb, kEqualDb};
  for (size_t begin = 0; begin < samples_.size(); begin += kJudgedAtOnce) {
    const size_t count = std::min(kJudgedAtOnce, samples_.size() - begin);
    const std::vector<Values> got = Watch(watched, begin, count);
    for (size_t i = 0; i < count; ++i) {
      const Values& all_wanted = (*wanted_)[begin + i];
      const bool is_left_out = 2 * turned < samples_.size() && HasTurned(all_wanted, got[i]);
      if (is_left_out) ++turned;
      for (const auto& [value, wanted] : all_wanted) {
        const auto found = got[i].find(value);
        if (wanted.dtype() != DType::kFloat32 || found == got[i].end()) continue;
        Fidelity sample;
        sample.Add(wanted, found->second);
        wanted.DropPages();
        if (is_left_out) {
          energies[value] -= sample.energy;
        } else {
          noises[value] += sample.noise;
        }
      }
    }
    worst = {kEqualDb, kEqualDb};
    for (const auto& [value, noise] : noises) {
      const Fidelity bound = {energies.at(value), noise};
      const bool is_judged = std::ranges::find(judged_, value) != judged_.end();
      double& of = is_judged ? worst.sqnr_db : worst.output_db;
      of = std::min(of, bound.sqnr_db());
    }
    if (worst.sqnr_db < least_db) break;
  }
  return worst;
}

std::map<std::string, double> NodeSqnrDb(const Model& model, const Int8Choice& choice,
                                         const Model& quantized, const PassContext& context) {
  Twins twins = MakeTwins(model, choice, quantized);
  std::vector<std::string> watched(twins.compared.begin(), twins.compared.end());
  for (const auto& [twin, original] : twins.originals) watched.push_back(twin);
  KeepPart(twins.model.graph, watched);
  twins.model.graph.outputs.clear();  // else all of them would be in memory at the end of a run
  const Executor executor(twins.model, {.seed = context.seed, .watched = std::move(watched)});
  const std::vector<int64_t> samples = Spread(CalibrationCount(context), kSensitivitySamples);
  std::vector<std::map<std::string, Fidelity>> parts(samples.size());
  tbb::parallel_for(size_t{0}, samples.size(), [&](size_t at) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while measuring");
    std::unordered_map<std::string, Tensor> wanted;
    const Observer observer = [&](const std::string& value, const Tensor& tensor) {
      if (twins.compared.contains(value)) wanted.emplace(value, tensor);
      const auto twin = twins.originals.find(value);
      if (twin == twins.originals.end()) return;
      parts[at][twin->second].Add(wanted.at(twin->second), tensor);
      wanted.erase(twin->second);
    };
    executor.Run(context.calibration->Sample(samples[at], executor.inputs()), &observer);
  });
  std::map<std::string, Fidelity> nodes;
  for (const std::map<std::string, Fidelity>& part : parts) {
    for (const auto& [value, fidelity] : part) {
      nodes[value].energy += fidelity.energy;
      nodes[value].noise += fidelity.noise;
    }
  }
  std::map<std::string, double> result;
  for (const auto& [value, fidelity] : nodes) result[value] = fidelity.sqnr_db();
  return result;
}

}  // namespace pared
