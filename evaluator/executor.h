// Prepares a model once, then runs batches on it.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

struct ExecutorOptions {
  Isa isa = SelectedIsa();
  int64_t threads = 1;  // of one Run; 0: all that TBB has
  bool fuse = true;     // false: every node as ONNX defines it, one by one (calibration, parity)
  bool sparse = true;   // false: dense INT8 kernels only, to measure what sparse ones gain
  bool tune = false;    // time the candidates of each INT8 layer when preparing
  int64_t seed = 0;     // of RandomNormal and its like where the node has no seed
  std::vector<std::string> watched = {};  // values that fusion leaves for the observer
};

// Sees the value of every name as it is made; called from one thread at a time, in node order.
// Without fusion all names of the main graph are seen.
using Observer = std::function<void(const std::string& value, const Tensor& tensor)>;

// What one node of the prepared model is and cost.
struct LayerStats {
  // kernel: "sparse_1x1_avx512vnni", of the last Run; empty: not an INT8 GEMM
  std::string node, op_type, kernel;
  std::string reason;           // what the cost model said of the kernels; empty: no choice
  Shape shape;                  // of the first output in the last Run
  double density = 1.0;         // of its weights
  double predicted_gain = 1.0;  // of `kernel` over the dense one, by the cost model
  int64_t macs = 0;             // of the last Run
  double time_ms = 0;           // mean over the profiled runs
};

class Executor {
 public:
  // Orders, fuses and packs. Keeps what it needs of `model`. Throws kUnsupported naming op, node
  // and opset; kInvalidArgument where a node breaks its operator's rules.
  explicit Executor(const Model& model, const ExecutorOptions& options = {});
  ~Executor();
  Executor(Executor&&) noexcept;

  // The model's inputs that a caller must give: graph inputs without those that are initializers.
  const std::vector<ValueInfo>& inputs() const;
  const std::vector<ValueInfo>& outputs() const;

  // `inputs` in the order of inputs(). Returns the graph's outputs in order. Thread-safe.
  // Throws kInvalidArgument naming the input whose type or shape does not fit.
  std::vector<Tensor> Run(const std::vector<Tensor>& inputs,
                          const Observer* observer = nullptr) const;

  // Runs `runs` times with a clock around every node.
  std::vector<LayerStats> Profile(const std::vector<Tensor>& inputs, int64_t runs) const;
  // The same once, for the outputs too; densities are those of INT8 weights only.
  std::vector<Tensor> RunTimed(const std::vector<Tensor>& inputs,
                               std::vector<LayerStats>& layers) const;

  // Largest sum of bytes of activations alive at once in any Run so far.
  int64_t peak_activation_bytes() const;

 private:
  struct Prepared;
  std::unique_ptr<Prepared> prepared_;
};

}  // namespace pared
