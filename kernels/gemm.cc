#include "kernels/gemm.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "base/check.h"
#include "kernels/aligned.h"
#include "kernels/packing.h"

namespace pared {
namespace {

// A format may win where so few weights are left; denser than this, dense always does.
constexpr double kSparseDensityMax = 0.7;
constexpr int64_t kTimedColumnsMax = 256;
constexpr int kRounds = 7;
// What a sparse kernel must gain over dense before the noise of timing may choose it.
constexpr double kMargin = 0.97;

double Seconds(const PackedGemm& gemm, const uint8_t* x, int64_t columns, std::byte* y) {
  AlignedBuffer<std::byte> scratch(gemm.scratch_bytes());
  const auto start = std::chrono::steady_clock::now();
  gemm.RunColumns(x, columns, y, scratch.data());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

struct Timed {
  std::unique_ptr<PackedGemm> gemm;
  double seconds = std::numeric_limits<double>::infinity();
};

// Packed for the candidates of the best level that `isa` includes; the last is the dense one, and
// the only one where the weights are dense.
std::vector<Timed> PackBestLevel(const GemmWeights& weights, double density, Isa isa) {
  std::vector<const GemmCandidate*> level;
  for (const GemmCandidate& candidate : GemmCandidates()) {
    if (!Includes(isa, candidate.isa)) continue;
    if (!level.empty() && candidate.isa != level.front()->isa) break;
    level.push_back(&candidate);
  }
  if (density > kSparseDensityMax) level.erase(level.begin(), level.end() - 1);
  std::vector<Timed> packed;
  for (const GemmCandidate* candidate : level) {
    packed.push_back({.gemm = candidate->pack(weights)});
  }
  return packed;
}

}  // namespace

std::unique_ptr<PackedGemm> PackGemm(const GemmWeights& weights, Isa isa) {
  const double density = CheckedDensity(weights);
  for (const GemmCandidate& candidate : GemmCandidates()) {
    if (Includes(isa, candidate.isa) && candidate.accepts(weights, density, isa)) {
      return candidate.pack(weights);
    }
  }
  PARED_CHECK(false);  // the reference accepts everything
}

std::unique_ptr<PackedGemm> PackDenseGemm(const GemmWeights& weights, Isa isa) {
  CheckedDensity(weights);
  for (const GemmCandidate& candidate : GemmCandidates()) {
    const bool is_sparse = std::string_view(candidate.name).starts_with("sparse");
    if (!is_sparse && Includes(isa, candidate.isa)) return candidate.pack(weights);
  }
  PARED_CHECK(false);  // the reference accepts everything
}

std::unique_ptr<PackedGemm> PackGemmTimed(const GemmWeights& weights, Isa isa, int64_t columns) {
  std::vector<Timed> packed = PackBestLevel(weights, CheckedDensity(weights), isa);
  if (packed.size() == 1) return std::move(packed.front().gemm);
  columns = std::clamp<int64_t>(columns, 1, kTimedColumnsMax);
  const int64_t tiles = (columns + kTileColumns - 1) / kTileColumns;
  AlignedBuffer<uint8_t> x(static_cast<size_t>(tiles * weights.k * kTileColumns));
  AlignedBuffer<std::byte> y(static_cast<size_t>(tiles * weights.m * kTileColumns) * 4);
  // Interleaved, so that a disturbance meets all alike; the least of few is what the code can do.
  for (int round = 0; round < kRounds; ++round) {
    for (Timed& t : packed) {
      t.seconds = std::min(t.seconds, Seconds(*t.gemm, x.data(), columns, y.data()));
    }
  }
  packed.back().seconds *= kMargin;
  const auto best =
      std::min_element(packed.begin(), packed.end(),
                       [](const Timed& a, const Timed& b) { return a.seconds < b.seconds; });
  return std::move(best->gemm);
}

}  // namespace pared
