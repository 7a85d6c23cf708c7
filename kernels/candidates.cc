#include <algorithm>
#include <array>

#include "kernels/kernels.h"
#include "kernels/reference.h"

namespace pared {
namespace {

bool Always(const GemmWeights& /*weights*/, double /*density*/, Isa /*isa*/) { return true; }

constexpr std::array kCandidates = {
    GemmCandidate{"dense_avx512vnni", Always, PackDenseAvx512Vnni, Isa::kAvx512Vnni},
    GemmCandidate{"reference", Always, PackReferenceGemm, Isa::kReference},
};

}  // namespace

std::span<const GemmCandidate> GemmCandidates() { return kCandidates; }

}  // namespace pared
