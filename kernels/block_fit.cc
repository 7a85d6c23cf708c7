#include "kernels/block_fit.h"

#include <cstring>

#pragma GCC push_options
#pragma GCC optimize("O3")

namespace pared {
namespace {

// One vector, two or four, as the instruction set has it: lane by lane the same arithmetic.
using Lanes = float __attribute__((vector_size(kBlockLanes * sizeof(float))));

#define PARED_LOOPS "kernels/block_fit_body.h"
#include "kernels/each_isa.h"

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
