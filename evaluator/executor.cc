#include "evaluator/executor.h"

#include <tbb/task_arena.h>

#include <chrono>
#include <optional>

#include "base/error.h"
#include "evaluator/fuse.h"
#include "evaluator/half_floats.h"
#include "evaluator/metrics.h"
#include "evaluator/prepared_graph.h"
#include "evaluator/sequence.h"

namespace pared {
namespace {

using Clock = std::chrono::steady_clock;

void CheckInput(const ValueInfo& info, const Tensor& tensor) {
  if (info.dtype == DType::kUndefined && !info.type_bytes.empty()) return;
  if (tensor.dtype() != info.dtype) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("must be of type ") + DTypeName(info.dtype) + ", is of " +
                    DTypeName(tensor.dtype()),
                info.name);
  }
  if (!info.shape) return;
  bool fits = info.shape->size() == tensor.shape().size();
  Shape wanted;
  for (size_t i = 0; i < info.shape->size(); ++i) {
    const int64_t dim = (*info.shape)[i].value;
    wanted.push_back(dim);
    if (fits && dim >= 0 && dim != tensor.shape()[i]) fits = false;
  }
  if (!fits) {
    throw Error(ErrorCode::kInvalidArgument,
                "must have shape " + ShapeText(wanted) + ", has shape " + ShapeText(tensor.shape()),
                info.name);
  }
}

// Of the constant floats that a product takes as its second input.
double WeightDensity(const PreparedGraph& graph, const PreparedStep& step) {
  const auto has = [&](const char* part) {
    return step.stats.op_type.find(part) != std::string::npos;
  };
  if (!has("Conv") && !has("MatMul") && !has("Gemm")) return 1;
  const ValueRef ref = step.inputs.size() > 1 ? step.inputs[1] : kNoValue;
  if (ref >= 0 || ref == kNoValue) return 1;
  const Tensor& w = graph.constants[static_cast<size_t>(~ref)];
  if (w.dtype() == DType::kFloat32) return DensityOf(w.data<float>());
  if (!IsHalfFloat(w.dtype())) return 1;
  return DensityOf(std::span<const float>(ToFloats(w)));
}

// Small results are copied: kept by the caller, they would hold the arena that they lie in. Strings
// and sequences are objects, no bytes.
Tensor OutOfPool(const Tensor& result) {
  constexpr size_t kCopiedBytesMax = size_t{256} << 10;
  const bool has_objects = result.dtype() == DType::kString || result.dtype() == kSequence;
  if (!result.defined() || has_objects) return result;
  const std::span<const std::byte> bytes = result.bytes();
  if (bytes.size() > kCopiedBytesMax) return result;
  const auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
  return Tensor::View(result.dtype(), result.shape(), *copy, copy, result.layout());
}

void Observe(const PreparedStep& step, const std::vector<const Tensor*>& outputs,
             const Observer& observer) {
  for (size_t i = 0; i < step.output_names.size(); ++i) {
    if (!step.output_names[i].empty() && outputs[i]->defined()) {
      observer(step.output_names[i], *outputs[i]);
    }
  }
}

}  // namespace

std::vector<Tensor> PreparedGraph::Run(std::span<const Tensor* const> given, BufferPool& pool,
                                       int64_t threads, const Hooks& hooks) const {
  std::vector<Tensor> slots(static_cast<size_t>(slot_count));
  const auto value = [&](ValueRef ref) -> const Tensor* {
    if (ref == kNoValue) return nullptr;
    const Tensor& found =
        ref >= 0 ? slots[static_cast<size_t>(ref)] : constants[static_cast<size_t>(~ref)];
    return found.defined() ? &found : nullptr;
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i] >= 0 && given[i] != nullptr) slots[static_cast<size_t>(inputs[i])] = *given[i];
  }
  std::vector<const Tensor*> step_inputs, seen;
  std::vector<Tensor> step_outputs;
  for (size_t s = 0; s < steps.size(); ++s) {
    const PreparedStep& step = steps[s];
    if (step.op) {
      step_inputs.clear();
      for (const ValueRef ref : step.inputs) step_inputs.push_back(value(ref));
      step_outputs.assign(step.outputs.size(), Tensor());
      Scratch scratch(pool, threads);
      const Clock::time_point begin = hooks.clock ? Clock::now() : Clock::time_point();
      step.op(step_inputs, step_outputs, scratch);
      if (hooks.clock) {
        const std::chrono::duration<double, std::milli> time = Clock::now() - begin;
        const Tensor none;
        hooks.clock(s, {time.count(), scratch, step_outputs.empty() ? none : step_outputs[0]});
      }
      for (size_t i = 0; i < step.outputs.size(); ++i) {
        if (step.outputs[i] >= 0) {
          slots[static_cast<size_t>(step.outputs[i])] = std::move(step_outputs[i]);
        }
      }
    }
    if (hooks.observer != nullptr) {
      seen.clear();
      static const Tensor undefined;
      for (const ValueRef ref : step.outputs) {
        const Tensor* made = value(ref);
        seen.push_back(made == nullptr ? &undefined : made);
      }
      Observe(step, seen, *hooks.observer);
    }
    for (const ValueRef ref : step.last_uses) slots[static_cast<size_t>(ref)] = Tensor();
  }
  std::vector<Tensor> results;
  for (const ValueRef ref : outputs) {
    const Tensor* result = value(ref);
    results.push_back(result == nullptr ? Tensor() : *result);
  }
  return results;
}

struct Executor::Prepared {
  std::vector<ValueInfo> inputs, outputs;
  PreparedGraph graph;
  int64_t threads = 1;
  mutable BufferPools pools;
  mutable std::optional<tbb::task_arena> arena;  // where several threads are asked for

  std::vector<Tensor> Run(const std::vector<Tensor>& given,
                          const PreparedGraph::Hooks& hooks) const {
    if (given.size() != inputs.size()) {
      throw Error(ErrorCode::kInvalidArgument, "the model takes " + std::to_string(inputs.size()) +
                                                   " inputs, was given " +
                                                   std::to_string(given.size()));
    }
    std::vector<const Tensor*> pointers;
    for (size_t i = 0; i < given.size(); ++i) {
      CheckInput(inputs[i], given[i]);
      pointers.push_back(&given[i]);
      if (hooks.observer != nullptr) (*hooks.observer)(inputs[i].name, given[i]);
    }
    const BufferPools::Lease lease(pools);
    std::vector<Tensor> results;
    const auto run = [&] { results = graph.Run(pointers, lease.pool(), threads, hooks); };
    arena ? arena->execute(run) : run();
    for (Tensor& result : results) result = OutOfPool(result);
    return results;
  }
};

Executor::Executor(const Model& model, const ExecutorOptions& options)
    : prepared_(std::make_unique<Prepared>()) {
  prepared_->inputs = CallerInputs(model.graph);
  prepared_->outputs = model.graph.outputs;
  prepared_->threads =
      options.threads == 0 ? tbb::this_task_arena::max_concurrency() : options.threads;
  if (prepared_->threads > 1) prepared_->arena.emplace(static_cast<int>(prepared_->threads));
  prepared_->graph = PrepareModel(options.fuse ? FuseForExecution(model, options) : model, options);
}

Executor::~Executor() = default;
Executor::Executor(Executor&&) noexcept = default;

const std::vector<ValueInfo>& Executor::inputs() const { return prepared_->inputs; }
const std::vector<ValueInfo>& Executor::outputs() const { return prepared_->outputs; }

std::vector<Tensor> Executor::Run(const std::vector<Tensor>& inputs,
                                  const Observer* observer) const {
  PreparedGraph::Hooks hooks;
  hooks.observer = observer;
  return prepared_->Run(inputs, hooks);
}

std::vector<Tensor> Executor::RunTimed(const std::vector<Tensor>& inputs,
                                       std::vector<LayerStats>& layers) const {
  const std::vector<PreparedStep>& steps = prepared_->graph.steps;
  layers.clear();
  std::vector<size_t> places;  // of each step among those that run
  for (const PreparedStep& step : steps) {
    places.push_back(layers.size());
    if (step.op) layers.push_back(step.stats);
  }
  PreparedGraph::Hooks hooks;
  hooks.clock = [&](size_t step, const PreparedGraph::Hooks::Tick& tick) {
    LayerStats& layer = layers[places[step]];
    layer.time_ms = tick.time_ms;
    layer.macs = tick.scratch.macs();
    // What was foreseen stands where it came true.
    if (const auto& kernel = tick.scratch.kernel(); kernel && kernel->name != layer.kernel) {
      layer.kernel = kernel->name;
      layer.predicted_gain = kernel->predicted_gain;
    }
    if (tick.output.defined()) layer.shape = tick.output.shape();
  };
  return prepared_->Run(inputs, hooks);
}

std::vector<LayerStats> Executor::Profile(const std::vector<Tensor>& inputs, int64_t runs) const {
  PARED_CHECK(runs > 0);
  std::vector<LayerStats> layers, last;
  for (int64_t run = 0; run < runs; ++run) {
    RunTimed(inputs, last);
    for (size_t i = 0; i < layers.size(); ++i) last[i].time_ms += layers[i].time_ms;
    layers = last;
  }
  size_t i = 0;
  for (const PreparedStep& step : prepared_->graph.steps) {
    if (!step.op) continue;
    LayerStats& layer = layers[i++];
    layer.time_ms /= static_cast<double>(runs);
    if (layer.kernel.empty()) layer.density = WeightDensity(prepared_->graph, step);
  }
  return layers;
}

int64_t Executor::peak_activation_bytes() const { return prepared_->pools.peak_bytes(); }

}  // namespace pared
