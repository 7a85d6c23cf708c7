#include "kernels/gemv.h"

#include <algorithm>
#include <array>

#include "kernels/kernels.h"
#include "kernels/reference.h"

namespace pared {
namespace {

bool Always(const GemmWeights& /*weights*/, double /*density*/, Isa /*isa*/) { return true; }

constexpr std::array kCandidates = {
#ifdef __x86_64__
    GemvCandidate{"gemv_16x4_avx512vnni", Always, PackGemv16x4Avx512Vnni, Isa::kAvx512Vnni},
    GemvCandidate{"gemv_avx2", Always, PackGemvAvx2, Isa::kAvx2},
#endif
#ifdef __aarch64__
    GemvCandidate{"gemv_neon_i8mm", Always, PackGemvNeonI8mm, Isa::kNeonI8mm},
    GemvCandidate{"gemv_neon_dot", Always, PackGemvNeonDot, Isa::kNeonDot},
#endif
    GemvCandidate{"gemv_reference", Always, PackReferenceGemv, Isa::kReference},
};

}  // namespace

std::span<const GemvCandidate> GemvCandidates() { return kCandidates; }

std::unique_ptr<PackedGemv> PackGemv(const GemmWeights& weights, Isa isa) {
  const double density = CheckedDensity(weights);
  for (const GemvCandidate& candidate : GemvCandidates()) {
    if (Includes(isa, candidate.isa) && candidate.accepts(weights, density, isa)) {
      return candidate.pack(weights);
    }
  }
  return PackReferenceGemv(weights);
}

}  // namespace pared
