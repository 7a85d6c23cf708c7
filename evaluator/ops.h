// The operators: how a node becomes a function over tensors.
//
// An OpInfo prepares a node: it reads attributes, checks them, looks at inputs that are constant
// and returns the function that runs. What does not depend on activations is done there, once.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cpu.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

class BufferPool;
struct LayerStats;

// What an op may use while it runs: memory and threads. One for each node call.
class Scratch {
 public:
  Scratch(BufferPool& pool, int64_t threads) : pool_(pool), threads_(threads) {}

  // Makes `out` a new tensor and returns its elements, 64-byte aligned and not initialized.
  template <class T>
  std::span<T> Allocate(Tensor& out, const Shape& shape) {
    std::byte* bytes = AllocateBytes(out, kDTypeOf<T>, shape, Layout::kRowMajor);
    return {reinterpret_cast<T*>(bytes), static_cast<size_t>(ElementCount(shape))};
  }
  std::byte* AllocateBytes(Tensor& out, DType dtype, const Shape& shape, Layout layout);

  // 64-byte aligned memory that lives until the node has run.
  std::byte* Temporary(size_t bytes);

  // Calls body(begin, end) over [0, count) in pieces of at least `grain`, by TBB where threads > 1.
  // Results must not depend on the cut.
  void ParallelFor(int64_t count, int64_t grain,
                   const std::function<void(int64_t begin, int64_t end)>& body) const;

  int64_t threads() const { return threads_; }
  BufferPool& pool() const { return pool_; }

  // Multiply-accumulates of this call as if the weights were dense: 2 * macs / time is its GOPS.
  void AddMacs(int64_t macs) { macs_ += macs; }
  int64_t macs() const { return macs_; }

  // The kernel of this call, where an op has several and chooses by the inputs' shape.
  struct KernelUse {
    const char* name = "";      // of a literal
    double predicted_gain = 1;  // over the dense one
  };
  void SetKernel(KernelUse kernel) { kernel_ = kernel; }
  const std::optional<KernelUse>& kernel() const { return kernel_; }

 private:
  BufferPool& pool_;
  int64_t threads_;
  int64_t macs_ = 0;
  std::optional<KernelUse> kernel_;
  std::vector<std::shared_ptr<void>> temporaries_;
};

// inputs: as many as the node has, then the names its subgraphs capture (CapturedNames of each
// graph in the order of the node's attributes); null: an optional left out. outputs: as many as the
// node has; an output whose name is empty may be left undefined.
using Op = std::function<void(std::span<const Tensor* const> inputs, std::span<Tensor> outputs,
                              Scratch& scratch)>;

// What is known of a node when it is prepared.
struct OpContext {
  int64_t opset = 0;  // of the node's domain
  Isa isa = Isa::kReference;
  int64_t threads = 1;
  bool tune = false;
  bool sparse = true;  // false: dense kernels only
  int64_t seed = 0;
  std::vector<const Tensor*> constants;  // by input; null: not a constant
  std::vector<bool> given;               // by input; false: an optional left out
  // Prepares a subgraph: a function from its inputs, then its captured names, to its outputs.
  std::function<Op(const GraphPtr&)> prepare_graph;
  // An INT8 op writes its kernel and density here when it is prepared. Null: nobody asks.
  LayerStats* stats = nullptr;
};

// What the executor does where an input is float16 or bfloat16. kWiden: the op sees float32 instead
// (constants too), and its float32 outputs are rounded to the type of its inputs.
enum class HalfFloats { kWiden, kNative };

struct OpInfo {
  std::string_view op_type;
  std::string_view domain;  // "" is ai.onnx; "com.microsoft"; "pared": made by fuse.cc only
  // Throws kUnsupported or kInvalidArgument with NodeLabel(node) in `where`.
  Op (*prepare)(const Node& node, const OpContext& context);
  HalfFloats half_floats = HalfFloats::kWiden;
};

// One list a family; ops.cc joins them.
std::span<const OpInfo> UnaryOps();   // Exp, Sigmoid, Gelu, Clip, ...
std::span<const OpInfo> BinaryOps();  // Add, Pow, Max, Less, BitShift, Where, ...
std::span<const OpInfo> CastOps();    // Cast, CastLike
std::span<const OpInfo> ConvOps();    // Conv, ConvTranspose, float
std::span<const OpInfo> MatMulOps();  // MatMul, Gemm, Einsum
std::span<const OpInfo> PoolOps();
std::span<const OpInfo> NormOps();    // BatchNormalization, LayerNormalization, Softmax, ...
std::span<const OpInfo> ReduceOps();  // Reduce*, ArgMax, CumSum, TopK
std::span<const OpInfo> ShapeOps();   // Reshape, Shape, Squeeze, Range, ConstantOfShape, ...
std::span<const OpInfo> LayoutOps();  // Transpose, Concat, Split, Slice, Expand, Tile, ...
std::span<const OpInfo> PadOps();
std::span<const OpInfo> GatherOps();     // Gather*, Scatter*, OneHot, Compress, ...
std::span<const OpInfo> SelectionOps();  // NonZero, Unique, NonMaxSuppression, ...
std::span<const OpInfo> ResizeOps();     // Resize, Upsample, GridSample, DepthToSpace, ...
std::span<const OpInfo> RecurrentOps();  // LSTM, GRU, RNN
std::span<const OpInfo> ControlOps();    // If, Loop, Scan
std::span<const OpInfo> RandomOps();
std::span<const OpInfo> QuantizeOps();  // QuantizeLinear, DequantizeLinear, ...: unfused
std::span<const OpInfo> IntegerOps();   // QLinearConv, MatMulInteger, QLinearAdd, ...: unfused
std::span<const OpInfo> FusedOps();     // domain "pared"

// Null: no such operator.
const OpInfo* FindOp(std::string_view domain, std::string_view op_type);

}  // namespace pared
