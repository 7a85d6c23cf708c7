#include "kernels/block_fit.h"

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

}  // namespace

BlockSums FitBlock(const BlockProblem& problem, Isa isa) noexcept {
#ifdef __x86_64__
  if (Includes(isa, Isa::kAvx512Vnni)) return avx512::Sums(problem);
  if (Includes(isa, Isa::kAvx2)) return avx2::Sums(problem);
#endif
  static_cast<void>(isa);
  return plain::Sums(problem);
}

}  // namespace pared

#pragma GCC pop_options
