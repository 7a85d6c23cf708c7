// INT8 GEMM of constant weights, dense or sparse: the contract of every kernel.
//
//   acc[m][n] = bias[m] + sum over k of w[m][k] * x[k][n]           int32, exact
//   kUInt8:    y = clamp(round_even(float(acc) * scale[m]) + zero_point, low, high)
//   kFloat32:  y = float(acc) * scale[m]
//   kInt32:    y = acc
//
// The product float(acc) * scale[m] is one IEEE single multiplication, rounded to nearest even, as
// ONNX Runtime's QLinearConv and QLinearMatMul compute it. Results are the same bits on every ISA.
//
// Activations are planar tiles [tile][k][64] of uint8: 64 columns (pixels or tokens) of one k lie
// together, so any set of k can be combined and zero weights need no padding (docs/kernels.md).
// A zero point of x costs nothing here: the caller folds -x_zero_point * sum over k of w[m][k] into
// bias. Padding columns of the last tile hold anything; their results are meaningless.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/cpu.h"

namespace pared {

constexpr int64_t kTileColumns = 64;

enum class GemmOutput { kUInt8, kFloat32, kInt32 };

struct GemmEpilogue {
  std::vector<int32_t> bias;  // [m]
  std::vector<float> scale;   // [m]; unused for kInt32
  GemmOutput output = GemmOutput::kUInt8;
  int32_t zero_point = 0;       // kUInt8 only, 0 to 255
  int32_t low = 0, high = 255;  // kUInt8 only: a fused Relu or Clip
};

struct GemmWeights {
  int64_t m = 0, k = 0;            // k < 65,536, so that the int32 sum cannot overflow
  std::span<const int8_t> values;  // [m][k]; not kept after Pack
  GemmEpilogue epilogue;
};

// Weights packed for one kernel. Immutable; Run may be called by many threads at once.
class PackedGemm {
 public:
  virtual ~PackedGemm() = default;
  // x: [tiles][k][64]; y: [tiles][m][64] of the output's type. Both 64-byte aligned.
  // `scratch` has scratch_bytes(), 64-byte aligned, of the calling thread alone.
  void Run(const uint8_t* x, int64_t tiles, void* y, std::byte* scratch) const noexcept {
    RunColumns(x, tiles * kTileColumns, y, scratch);
  }
  // The same over the first `columns` columns: what lies behind them in the last tile of y may be
  // left as it was, which is cheaper where few columns of that tile are in use.
  virtual void RunColumns(const uint8_t* x, int64_t columns, void* y,
                          std::byte* scratch) const noexcept = 0;
  virtual size_t scratch_bytes() const = 0;
  virtual size_t weight_bytes() const = 0;      // what Run reads, indices included
  virtual const char* kernel_name() const = 0;  // the candidate's name
};

struct GemmCandidate {
  const char* name;  // format and ISA: "sparse_2x1_avx512vnni"
  // Whether it can run these weights and is expected to be the fastest of the list from here on.
  // Cheap. `density` is the fraction of nonzero weights.
  bool (*accepts)(const GemmWeights& weights, double density, Isa isa);
  std::unique_ptr<PackedGemm> (*pack)(const GemmWeights& weights);
  Isa isa;  // what it needs
};

// Best first; the reference ends the list and accepts everything.
std::span<const GemmCandidate> GemmCandidates();

// Packs for the first candidate that accepts.
std::unique_ptr<PackedGemm> PackGemm(const GemmWeights& weights, Isa isa);

// Packs for the dense kernel of the best level that `isa` includes.
std::unique_ptr<PackedGemm> PackDenseGemm(const GemmWeights& weights, Isa isa);

// What the cost model expects: how many times as fast as dense each sparse format is.
struct GemmPrediction {
  double sparse_1x1 = 0, sparse_2x1 = 0, sparse_4x1 = 0;

  // Of the candidate `kernel_name`; 1 for dense ones.
  double GainOf(std::string_view kernel_name) const;
};
// Of AVX2, or of the levels that have dot products.
GemmPrediction PredictGemm(const GemmWeights& weights, Isa isa = Isa::kAvx512Vnni);

// The same choice confirmed by timing: every candidate that can run on `isa` and may win runs on
// `columns` columns of synthetic activations, 256 at most, and the fastest is kept. The result's
// bits do not depend on the choice.
std::unique_ptr<PackedGemm> PackGemmTimed(const GemmWeights& weights, Isa isa, int64_t columns);

}  // namespace pared
