#include "kernels/block_fit.h"

#include <array>
#include <cstring>

#pragma GCC push_options
#pragma GCC optimize("O3")

namespace pared {
namespace {

// One vector, two or four, as the instruction set has it: lane by lane the same arithmetic.
using Lanes = float __attribute__((vector_size(kBlockLanes * sizeof(float))));

namespace plain {
#include "kernels/block_fit_body.h"
}  // namespace plain

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
#include "kernels/block_fit_body.h"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
#include "kernels/block_fit_body.h"
}  // namespace avx512
#pragma GCC pop_options
#endif

using LaneSums = std::array<float, kBlockLanes>;

void Dispatch(const BlockProblem& problem, Isa isa, float* error, float* product, float* square) {
#ifdef __x86_64__
  if (Includes(isa, Isa::kAvx512Vnni)) return avx512::Sums(problem, error, product, square);
  if (Includes(isa, Isa::kAvx2)) return avx2::Sums(problem, error, product, square);
#endif
  static_cast<void>(isa);
  plain::Sums(problem, error, product, square);
}

double Total(const LaneSums& lanes) {
  double sum = 0;
  for (const float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

}  // namespace

BlockSums FitBlock(const BlockProblem& problem, Isa isa) noexcept {
  LaneSums error, product, square;
  Dispatch(problem, isa, error.data(), product.data(), square.data());
  return {Total(error), Total(product), Total(square)};
}

}  // namespace pared

#pragma GCC pop_options
