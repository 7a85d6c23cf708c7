// A graph made ready to run: nodes as functions, values as numbered slots.
//
// Constants lie beside the slots and are shared by all runs. Each step knows which slots nobody
// reads after it, so that their buffers go back to the pool at once.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/memory.h"
#include "evaluator/ops.h"
#include "model/graph.h"

namespace pared {

// A value: slot number, or ~number of a constant, or kNoValue.
using ValueRef = int32_t;
inline constexpr ValueRef kNoValue = INT32_MIN;

struct PreparedStep {
  Op op;  // empty: its outputs are constants, computed when preparing
  std::vector<ValueRef> inputs, outputs;
  std::vector<ValueRef> last_uses;        // slots to release after it
  std::vector<std::string> output_names;  // of the graph itself; empty within a function's body
  LayerStats stats;
};

struct PreparedGraph {
  std::vector<ValueRef> inputs, outputs;
  std::vector<Tensor> constants;
  std::vector<PreparedStep> steps;
  int32_t slot_count = 0;

  // Called around each step; null functions are not.
  struct Hooks {
    const Observer* observer = nullptr;
    struct Tick {
      double time_ms;
      const Scratch& scratch;  // what the step said of itself
      const Tensor& output;    // the first
    };
    std::function<void(size_t step, const Tick& tick)> clock;
  };
  std::vector<Tensor> Run(std::span<const Tensor* const> inputs, BufferPool& pool, int64_t threads,
                          const Hooks& hooks) const;
};

// Throws as Executor's constructor.
PreparedGraph PrepareModel(const Model& model, const ExecutorOptions& options);

}  // namespace pared
