// The list of kernels, and the cost model by which a format is accepted.
//
// Costs are cycles per tile of 64 columns, measured (docs/kernels.md): a format costs so much an
// entry (four k of R rows) and so much a row. Only their order decides, so that one set of numbers
// serves all ISAs but AVX2, whose dense kernel reads x widened once for all rows.

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/sparse.h"

namespace pared {
namespace {

constexpr double kDenseStep = 4.1;    // four k of one row
constexpr double kSparseStep1 = 8.4;  // an entry: see docs/kernels.md
constexpr double kSparseStep2 = 9.5;
constexpr double kSparseStep4 = 17.0;
constexpr double kAvx2Step1 = 9.1;  // in units of AVX2's own dense step
constexpr double kAvx2Step2 = 14.4;
constexpr double kDenseRow = 8;    // bias, requantize, store
constexpr double kWorthIt = 0.95;  // what is within the model's error of dense stays dense
constexpr double kSparseRow = 11;  // the same, and the end of a short loop mispredicted

double DenseCost(const GemmWeights& w) {
  const double steps = static_cast<double>((w.k + 3) / 4);
  return static_cast<double>(w.m) * (steps * kDenseStep + kDenseRow);
}

// No list is shorter than the nonzeros make it: an estimate without a look at the weights.
double LeastSparseCost(const GemmWeights& w, double density) {
  const double nonzeros = density * static_cast<double>(w.m * w.k);
  return nonzeros / 16 * std::min(kSparseStep4, 4 * kSparseStep1);
}

double SparseCost(const GemmWeights& w, int64_t rows, double step) {
  const double entries = static_cast<double>(CountEntries(w, rows, 4));
  return entries * step + static_cast<double>(w.m) * kSparseRow;
}

bool Always(const GemmWeights& /*weights*/, double /*density*/, Isa /*isa*/) { return true; }

double Step1(Isa isa) { return isa == Isa::kAvx2 ? kAvx2Step1 : kSparseStep1; }
double Step2(Isa isa) { return isa == Isa::kAvx2 ? kAvx2Step2 : kSparseStep2; }

// Each accepts where it beats what comes after it in the list.
bool Sparse1x1Wins(const GemmWeights& w, double density, Isa isa) {
  const double dense = kWorthIt * DenseCost(w);
  return LeastSparseCost(w, density) < dense && SparseCost(w, 1, Step1(isa)) < dense;
}

bool Sparse2x1Wins(const GemmWeights& w, double density, Isa isa) {
  const double dense = kWorthIt * DenseCost(w);
  if (LeastSparseCost(w, density) >= dense) return false;
  return SparseCost(w, 2, Step2(isa)) < std::min(dense, SparseCost(w, 1, Step1(isa)));
}

bool Sparse4x1Wins(const GemmWeights& w, double density, Isa /*isa*/) {
  const double dense = kWorthIt * DenseCost(w);
  if (LeastSparseCost(w, density) >= dense) return false;
  return SparseCost(w, 4, kSparseStep4) <
         std::min({dense, SparseCost(w, 1, kSparseStep1), SparseCost(w, 2, kSparseStep2)});
}

constexpr std::array kCandidates = {
#ifdef __x86_64__
    GemmCandidate{"sparse_4x1_avx512vnni", Sparse4x1Wins, PackSparse4x1Avx512Vnni,
                  Isa::kAvx512Vnni},
    GemmCandidate{"sparse_2x1_avx512vnni", Sparse2x1Wins, PackSparse2x1Avx512Vnni,
                  Isa::kAvx512Vnni},
    GemmCandidate{"sparse_1x1_avx512vnni", Sparse1x1Wins, PackSparse1x1Avx512Vnni,
                  Isa::kAvx512Vnni},
    GemmCandidate{"dense_avx512vnni", Always, PackDenseAvx512Vnni, Isa::kAvx512Vnni},
    GemmCandidate{"sparse_2x1_avxvnni", Sparse2x1Wins, PackSparse2x1AvxVnni, Isa::kAvxVnni},
    GemmCandidate{"sparse_1x1_avxvnni", Sparse1x1Wins, PackSparse1x1AvxVnni, Isa::kAvxVnni},
    GemmCandidate{"dense_avxvnni", Always, PackDenseAvxVnni, Isa::kAvxVnni},
    GemmCandidate{"sparse_2x1_avx2", Sparse2x1Wins, PackSparse2x1Avx2, Isa::kAvx2},
    GemmCandidate{"sparse_1x1_avx2", Sparse1x1Wins, PackSparse1x1Avx2, Isa::kAvx2},
    GemmCandidate{"dense_avx2", Always, PackDenseAvx2, Isa::kAvx2},
#endif
#ifdef __aarch64__
    GemmCandidate{"sparse_4x1_neon_i8mm", Sparse4x1Wins, PackSparse4x1NeonI8mm, Isa::kNeonI8mm},
    GemmCandidate{"sparse_2x1_neon_i8mm", Sparse2x1Wins, PackSparse2x1NeonI8mm, Isa::kNeonI8mm},
    GemmCandidate{"sparse_1x1_neon_i8mm", Sparse1x1Wins, PackSparse1x1NeonI8mm, Isa::kNeonI8mm},
    GemmCandidate{"dense_neon_i8mm", Always, PackDenseNeonI8mm, Isa::kNeonI8mm},
    GemmCandidate{"sparse_4x1_neon_dot", Sparse4x1Wins, PackSparse4x1NeonDot, Isa::kNeonDot},
    GemmCandidate{"sparse_2x1_neon_dot", Sparse2x1Wins, PackSparse2x1NeonDot, Isa::kNeonDot},
    GemmCandidate{"sparse_1x1_neon_dot", Sparse1x1Wins, PackSparse1x1NeonDot, Isa::kNeonDot},
    GemmCandidate{"dense_neon_dot", Always, PackDenseNeonDot, Isa::kNeonDot},
#endif
    GemmCandidate{"reference", Always, PackReferenceGemm, Isa::kReference},
};

}  // namespace

std::span<const GemmCandidate> GemmCandidates() { return kCandidates; }

double GemmPrediction::GainOf(std::string_view kernel_name) const {
  if (kernel_name.starts_with("sparse_1x1")) return sparse_1x1;
  if (kernel_name.starts_with("sparse_2x1")) return sparse_2x1;
  if (kernel_name.starts_with("sparse_4x1")) return sparse_4x1;
  return 1;
}

GemmPrediction PredictGemm(const GemmWeights& weights, Isa isa) {
  const double dense = DenseCost(weights);
  return {.sparse_1x1 = dense / SparseCost(weights, 1, Step1(isa)),
          .sparse_2x1 = dense / SparseCost(weights, 2, Step2(isa)),
          .sparse_4x1 = dense / SparseCost(weights, 4, kSparseStep4)};
}

}  // namespace pared
