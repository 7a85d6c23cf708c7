#include "passes/int8_cone.h"

#include <algorithm>
#include <cmath>

#include "evaluator/executor.h"
#include "passes/int8_fidelity.h"
#include "passes/int8_params.h"

namespace pared {
namespace {

constexpr int kCuts = 20;        // of each end: each a quarter of an octave less
constexpr double kHopeless = 2;  // times the least error: narrower ranges are not tried

void AddConstants(const Int8ChoiceContext& context, const Node& node, Model& model) {
  for (const std::string& input : node.inputs) {
    if (input.empty()) continue;
    const Tensor* constant =
        ConstantOf(context.model->graph, *context.index, input, context.model->ir_version);
    if (constant != nullptr) model.graph.initializers.set(input, {*constant, ""});
  }
}

// Errors of one range, over all samples and results.
class ErrorOfRange {
 public:
  ErrorOfRange(const Model& model, const std::vector<const Tensor*>& samples, int64_t threads)
      : executor_(model, ExecutorOptions{.threads = threads, .fuse = false, .seed = 0}),
        samples_(samples) {
    for (const Tensor* sample : samples) wanted_.push_back(executor_.Run({*sample}));
  }

  double operator()(ValueRange range) const {
    Fidelity fidelity;
    for (size_t i = 0; i < samples_.size(); ++i) {
      const std::span<const float> elements = samples_[i]->data<float>();
      std::vector<float> rounded(elements.begin(), elements.end());
      RoundToCodes(ParamsOf(range), rounded);
      const std::vector<Tensor> got =
          executor_.Run({Tensor::Make<float>(samples_[i]->shape(), std::move(rounded))});
      for (size_t j = 0; j < got.size(); ++j) fidelity.Add(wanted_[i][j], got[j]);
    }
    return fidelity.noise;
  }

 private:
  Executor executor_;
  const std::vector<const Tensor*>& samples_;
  std::vector<std::vector<Tensor>> wanted_;
};

// Functions of one element are measured on so many of them.
constexpr int64_t kElementsMax = int64_t{1} << 17;

// Whether the functions do the same with every element, wherever it stands.
bool IsByElement(const Model& model) {
  for (const auto& [name, initializer] : model.graph.initializers) {
    if (initializer.tensor.count() != 1 || initializer.tensor.rank() > 1) return false;
  }
  return true;
}

// Elements evenly from all of `samples`, as one axis.
Tensor SpreadElements(const std::vector<const Tensor*>& samples) {
  int64_t count = 0;
  for (const Tensor* sample : samples) count += sample->count();
  const int64_t step = std::max<int64_t>(1, count / kElementsMax);
  std::vector<float> elements;
  int64_t next = 0;  // in all samples, one after the other
  for (const Tensor* sample : samples) {
    const std::span<const float> all = sample->data<float>();
    for (; next < std::ssize(all); next += step) elements.push_back(all[static_cast<size_t>(next)]);
    next -= std::ssize(all);
  }
  const Shape shape = {std::ssize(elements)};
  return Tensor::Make<float>(shape, std::move(elements));
}

}  // namespace

std::optional<Cone> Cone::Find(const Int8ChoiceContext& context, const Int8Choice& choice,
                               const std::string& value) {
  const Graph& graph = context.model->graph;
  Model model;
  model.ir_version = context.model->ir_version;
  model.opsets = context.model->opsets;
  model.graph.name = "cone";
  const auto info = [](const std::string& name) {
    ValueInfo result;
    result.name = name;
    result.dtype = DType::kFloat32;
    return result;
  };
  model.graph.inputs.push_back(info(value));
  const std::unordered_set<std::string> quantized(choice.values.begin(), choice.values.end());
  std::unordered_set<std::string> inside = {value};
  for (const Node& node : graph.nodes) {
    const bool reads = std::ranges::any_of(
        node.inputs, [&](const std::string& input) { return inside.contains(input); });
    if (!reads) continue;
    if (choice.RoleOf(node) != Int8Role::kPointwise) return std::nullopt;
    AddConstants(context, node, model);
    model.graph.nodes.push_back(node);
    // What lies behind a quantized result is a function of that.
    if (quantized.contains(node.outputs[0])) {
      model.graph.outputs.push_back(info(node.outputs[0]));
    } else {
      inside.insert(node.outputs[0]);
    }
  }
  if (model.graph.outputs.empty() || context.index->is_output(value)) return std::nullopt;
  return Cone(std::move(model));
}

ValueRange Cone::BestRange(const std::vector<const Tensor*>& samples, ValueRange seen,
                           int64_t threads) const {
  const Tensor spread = IsByElement(model_) ? SpreadElements(samples) : Tensor();
  const std::vector<const Tensor*> some = {&spread};
  const ErrorOfRange error_of(model_, spread.defined() ? some : samples, threads);
  ValueRange best = seen;
  double least = error_of(seen);
  for (float ValueRange::*const end : {&ValueRange::min, &ValueRange::max}) {
    const ValueRange whole = best;
    for (int i = 1; i < kCuts; ++i) {
      ValueRange range = whole;
      range.*end *= std::exp2(static_cast<float>(-i) / 4);
      const double error = error_of(range);
      if (error < least) {
        least = error;
        best = range;
      } else if (error > kHopeless * least) {
        break;
      }
    }
  }
  return best;
}

}  // namespace pared
