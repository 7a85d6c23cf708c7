#include "kernels/gemm.h"

#include "base/check.h"
#include "kernels/packing.h"

namespace pared {
std::unique_ptr<PackedGemm> PackGemm(const GemmWeights& weights, Isa isa) {
  const double density = CheckedDensity(weights);
  for (const GemmCandidate& candidate : GemmCandidates()) {
    if (candidate.isa <= isa && candidate.accepts(weights, density, isa)) {
      return candidate.pack(weights);
    }
  }
  PARED_CHECK(false);  // the reference accepts everything
}

std::unique_ptr<PackedGemm> PackGemmTimed(const GemmWeights& weights, Isa isa, int64_t /*tiles*/) {
  return PackGemm(weights, isa);
}

}  // namespace pared
