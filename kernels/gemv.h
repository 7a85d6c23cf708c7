// INT8 matrix times few vectors (n <= 16): fully connected layers and token decode, where a tile
// of 64 columns would be mostly empty. The sums and the epilogue are those of gemm.h, the layout is
// the plain one: rows of x and y are tokens.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/cpu.h"
#include "kernels/gemm.h"

namespace pared {

// Immutable; Run may be called by many threads at once.
class PackedGemv {
 public:
  virtual ~PackedGemv() = default;
  // x: [n][k]; y: [n][m] of the output's type. No alignment asked.
  void Run(const uint8_t* x, int64_t n, void* y) const noexcept {
    RunRows(x, n, {0, row_blocks()}, y);
  }
  // Blocks [begin, end) of the output rows m, for splitting among threads.
  struct Blocks {
    int64_t begin, end;
  };
  virtual void RunRows(const uint8_t* x, int64_t n, Blocks blocks, void* y) const noexcept = 0;
  virtual int64_t row_blocks() const = 0;
  virtual size_t weight_bytes() const = 0;
  virtual const char* kernel_name() const = 0;
};

struct GemvCandidate {
  const char* name;
  bool (*accepts)(const GemmWeights& weights, double density, Isa isa);
  std::unique_ptr<PackedGemv> (*pack)(const GemmWeights& weights);
  Isa isa;
};

// Best first; the reference ends the list.
std::span<const GemvCandidate> GemvCandidates();

std::unique_ptr<PackedGemv> PackGemv(const GemmWeights& weights, Isa isa);

}  // namespace pared
