// Every kernel that this machine can run, against the plain loops, bit for bit.

#include "kernels/gemm.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/packing.h"
#include "kernels/reference.h"
#include "kernels/sparse.h"

namespace pared {
namespace {

bool IsHere(Isa isa) {
  const std::vector<Isa> here = AvailableIsas();
  return std::find(here.begin(), here.end(), isa) != here.end();
}

enum class Mask { kUnstructured, k2x1, k4x1, k1x4, kFirstColumns };

// What the codes' conversion meets: rows that saturate everywhere; limits and a zero point;
// neither.
enum class Codes { kHugeScales, kLimits, kWhole };
constexpr Codes kAllCodes[] = {Codes::kHugeScales, Codes::kLimits, Codes::kWhole};

struct Case {
  int64_t m, k, columns;
  double sparsity = 0;
  Mask mask = Mask::kUnstructured;
  GemmOutput output = GemmOutput::kUInt8;
};

// Weights and activations of a case; extremes are more frequent than chance would have them.
class Problem {
 public:
  explicit Problem(const Case& c, Codes codes = Codes::kHugeScales)
      : c_(c), random_(static_cast<unsigned>(c.m * 7919 + c.k)) {
    values_.resize(static_cast<size_t>(c.m * c.k));
    FillWeights();
    weights_ = {.m = c.m, .k = c.k, .values = values_, .epilogue = {}};
    weights_.epilogue.output = c.output;
    for (int64_t i = 0; i < c.m; ++i) {
      weights_.epilogue.bias.push_back(Between(-20000, 20000));
      const bool is_huge = codes == Codes::kHugeScales && i % 8 == 3;
      const float scale = is_huge ? 1e9F : 60.0F / (300.0F * static_cast<float>(c.k));
      weights_.epilogue.scale.push_back(scale * (1 + 0.01F * static_cast<float>(Between(0, 99))));
    }
    if (codes == Codes::kWhole) return;
    weights_.epilogue.zero_point = Between(0, 255);
    if (c.m % 2 == 0) {
      weights_.epilogue.low = weights_.epilogue.zero_point;  // a fused Relu
      weights_.epilogue.high = 250;
    }
    if (weights_.epilogue.low > 250) weights_.epilogue.low = 0;
  }

  const GemmWeights& weights() const { return weights_; }
  int64_t tiles() const { return (c_.columns + 63) / 64; }

  AlignedBuffer<uint8_t> Activations() {
    AlignedBuffer<uint8_t> x(static_cast<size_t>(tiles() * c_.k * 64));
    for (size_t i = 0; i < x.size(); ++i) {
      const int kind = Between(0, 9);
      x[i] = static_cast<uint8_t>(kind == 0 ? 0 : kind <= 2 ? 255 : Between(0, 255));
    }
    return x;
  }

 private:
  int32_t Between(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  int8_t Weight() {
    const int kind = Between(0, 9);
    int32_t w = kind == 0 ? -128 : kind == 1 ? 127 : Between(-127, 127);
    return static_cast<int8_t>(w == 0 ? 1 : w);
  }

  void FillWeights() {
    const int64_t rows = c_.mask == Mask::k2x1 ? 2 : c_.mask == Mask::k4x1 ? 4 : 1;
    const int64_t wide = c_.mask == Mask::k1x4 ? 4 : 1;
    for (int64_t m0 = 0; m0 < c_.m; m0 += rows) {
      for (int64_t k0 = 0; k0 < c_.k; k0 += wide) {
        const bool drop =
            c_.mask == Mask::kFirstColumns
                ? static_cast<double>(k0) >= (1 - c_.sparsity) * static_cast<double>(c_.k)
                : Between(0, 9999) < c_.sparsity * 10000;
        for (int64_t m = m0; m < std::min(m0 + rows, c_.m); ++m) {
          for (int64_t k = k0; k < std::min(k0 + wide, c_.k); ++k) {
            values_[static_cast<size_t>(m * c_.k + k)] = drop ? int8_t{0} : Weight();
          }
        }
      }
    }
  }

  Case c_;
  std::mt19937 random_;
  std::vector<int8_t> values_;
  GemmWeights weights_;
};

// y of `columns` columns, without what padding columns hold: [column][m] of the output's bytes.
std::vector<std::byte> RunGemm(const PackedGemm& gemm, const Case& c,
                               const AlignedBuffer<uint8_t>& x) {
  const size_t size = static_cast<size_t>(OutputBytes(c.output)), m = static_cast<size_t>(c.m);
  const size_t columns = static_cast<size_t>(c.columns);
  AlignedBuffer<std::byte> y((columns + 63) / 64 * 64 * m * size), scratch(gemm.scratch_bytes());
  gemm.RunColumns(x.data(), c.columns, y.data(), scratch.data());
  std::vector<std::byte> out(columns * m * size);
  for (size_t n = 0; n < columns; ++n) {
    for (size_t i = 0; i < m; ++i) {
      std::memcpy(&out[(n * m + i) * size], &y[(n / 64 * m * 64 + i * 64 + n % 64) * size], size);
    }
  }
  return out;
}

std::string Describe(const Case& c) {
  return std::to_string(c.m) + "x" + std::to_string(c.k) + "x" + std::to_string(c.columns) +
         " sparsity " + std::to_string(c.sparsity) + " mask " +
         std::to_string(static_cast<int>(c.mask)) + " output " +
         std::to_string(static_cast<int>(c.output));
}

void ExpectEqualReference(const Case& c, Codes codes) {
  Problem problem(c, codes);
  const AlignedBuffer<uint8_t> x = problem.Activations();
  const std::vector<std::byte> expected = RunGemm(*PackReferenceGemm(problem.weights()), c, x);
  for (const GemmCandidate& candidate : GemmCandidates()) {
    if (!IsHere(candidate.isa)) continue;
    const std::unique_ptr<PackedGemm> gemm = candidate.pack(problem.weights());
    EXPECT_STREQ(gemm->kernel_name(), candidate.name);
    EXPECT_TRUE(RunGemm(*gemm, c, x) == expected) << candidate.name << " " << Describe(c);
  }
}

void ExpectAllEqualReference(const Case& c) {
  for (const Codes codes : kAllCodes) {
    SCOPED_TRACE(static_cast<int>(codes));
    ExpectEqualReference(c, codes);
    if (c.output != GemmOutput::kUInt8) return;
  }
}

TEST(Gemm, EveryKernelEqualsTheReferenceAtEachTileEdge) {
  for (int64_t m : {1, 2, 3, 4, 5, 6, 7, 12, 13}) {
    for (int64_t k : {1, 2, 3, 4, 5, 8, 13, 75}) {
      for (int64_t columns : {1,  4,  5,  6,  7,  16, 17,  32,  33,  38,  48,  49,  54,  55, 64,
                              65, 72, 73, 81, 96, 97, 127, 128, 129, 136, 137, 196, 200, 201}) {
        ExpectAllEqualReference({.m = m, .k = k, .columns = columns, .sparsity = 0.3});
      }
    }
  }
}

TEST(Gemm, EveryKernelEqualsTheReferenceWhereTilesAreFetchedAhead) {
  ExpectAllEqualReference({.m = 5, .k = 1400, .columns = 388, .sparsity = 0.9});
}

TEST(Gemm, EveryKernelEqualsTheReferenceForEachOutputType) {
  for (GemmOutput output : {GemmOutput::kUInt8, GemmOutput::kFloat32, GemmOutput::kInt32}) {
    for (int64_t columns : {5, 20, 49, 64, 130}) {
      ExpectAllEqualReference(
          {.m = 11, .k = 37, .columns = columns, .sparsity = 0.5, .output = output});
    }
  }
}

TEST(Gemm, EveryKernelEqualsTheReferenceAtEachSparsity) {
  for (double sparsity : {0.0, 0.5, 0.8, 0.9, 0.99, 1.0}) {
    for (Mask mask :
         {Mask::kUnstructured, Mask::k2x1, Mask::k4x1, Mask::k1x4, Mask::kFirstColumns}) {
      ExpectAllEqualReference(
          {.m = 18, .k = 300, .columns = 70, .sparsity = sparsity, .mask = mask});
      ExpectAllEqualReference(
          {.m = 9, .k = 77, .columns = 192, .sparsity = sparsity, .mask = mask});
    }
  }
}

TEST(Gemm, EveryKernelEqualsTheReferenceWhereKSpansSeveralBlocks) {
  for (int64_t k : {255, 256, 257, 511, 512, 513, 1030, 2305}) {
    for (double sparsity : {0.0, 0.9, 0.98}) {
      ExpectAllEqualReference({.m = 7, .k = k, .columns = 130, .sparsity = sparsity});
    }
  }
  for (int64_t columns : {4, 16, 20, 50, 72, 80, 96, 128, 140, 196, 210}) {
    ExpectAllEqualReference({.m = 7, .k = 2700, .columns = columns, .sparsity = 0.95});
    ExpectAllEqualReference({.m = 5, .k = 4200, .columns = columns, .sparsity = 0.98});
  }
}

TEST(Gemm, EveryKernelKeepsSumsExactAtTheSaturationCorners) {
  for (int8_t w : {int8_t{-128}, int8_t{127}}) {
    const int64_t k = 1000;
    const std::vector<int8_t> values(static_cast<size_t>(2 * k), w);
    GemmWeights weights{.m = 2, .k = k, .values = values, .epilogue = {}};
    weights.epilogue.bias = {3, -7};
    weights.epilogue.output = GemmOutput::kInt32;
    AlignedBuffer<uint8_t> x(static_cast<size_t>(k * 64));
    std::memset(x.data(), 255, x.size());
    for (const GemmCandidate& candidate : GemmCandidates()) {
      if (!IsHere(candidate.isa)) continue;
      const std::unique_ptr<PackedGemm> gemm = candidate.pack(weights);
      AlignedBuffer<int32_t> y(128);
      AlignedBuffer<std::byte> scratch(gemm->scratch_bytes());
      gemm->Run(x.data(), 1, y.data(), scratch.data());
      EXPECT_EQ(y[0], 255000 * w + 3) << candidate.name;
      EXPECT_EQ(y[127], 255000 * w - 7) << candidate.name;
    }
  }
}

TEST(Gemm, RoundsHalvesToEvenAndSaturates) {
  // Sums 0 to 5 of scale 0.5, zero point 10: 0 0.5 1 1.5 2 2.5 round to 0 0 1 2 2 2.
  const std::vector<int8_t> values = {1};
  GemmWeights weights{.m = 1, .k = 1, .values = values, .epilogue = {}};
  weights.epilogue.bias = {0};
  weights.epilogue.scale = {0.5F};
  weights.epilogue.zero_point = 10;
  weights.epilogue.high = 200;
  AlignedBuffer<uint8_t> x(64);
  for (uint8_t i = 0; i < 6; ++i) x[i] = i;
  x[63] = 255;
  for (const GemmCandidate& candidate : GemmCandidates()) {
    if (!IsHere(candidate.isa)) continue;
    for (float scale : {0.5F, 1e38F}) {
      weights.epilogue.scale = {scale};
      const std::unique_ptr<PackedGemm> gemm = candidate.pack(weights);
      AlignedBuffer<uint8_t> y(64);
      AlignedBuffer<std::byte> scratch(gemm->scratch_bytes());
      gemm->Run(x.data(), 1, y.data(), scratch.data());
      const std::vector<uint8_t> got(y.data(), y.data() + 6);
      const std::vector<uint8_t> half = {10, 10, 11, 12, 12, 12};
      const std::vector<uint8_t> huge = {10, 200, 200, 200, 200, 200};
      EXPECT_EQ(got, scale == 0.5F ? half : huge) << candidate.name;
      EXPECT_EQ(y[63], scale == 0.5F ? 138 : 200) << candidate.name;
    }
  }
}

// Memory whose first byte past the end faults: the address sanitizer does not see into assembly.
class Guarded {
 public:
  explicit Guarded(size_t size) : size_(size), mapped_((size + kPage - 1) / kPage * kPage + kPage) {
    base_ = static_cast<uint8_t*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_EQ(mprotect(base_ + mapped_ - kPage, kPage, PROT_NONE), 0);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(base_, mapped_); }
  uint8_t* data() { return base_ + mapped_ - kPage - size_; }

 private:
  static constexpr size_t kPage = 4096;
  size_t size_, mapped_;
  uint8_t* base_;
};

TEST(Gemm, NoKernelReadsOrWritesPastTheLastTile) {
  for (int64_t k : {1, 2, 3, 4, 5, 63}) {
    for (int64_t m : {1, 3, 7}) {
      for (int64_t columns : {1, 12, 20, 64, 70, 128, 192, 200}) {
        const Case c{.m = m, .k = k, .columns = columns, .sparsity = 0.4};
        Problem problem(c);
        Guarded x(static_cast<size_t>(problem.tiles() * k * 64));
        Guarded y(static_cast<size_t>(problem.tiles() * m * 64));
        for (const GemmCandidate& candidate : GemmCandidates()) {
          if (!IsHere(candidate.isa)) continue;
          const std::unique_ptr<PackedGemm> gemm = candidate.pack(problem.weights());
          Guarded scratch(gemm->scratch_bytes());
          gemm->RunColumns(x.data(), columns, y.data(),
                           reinterpret_cast<std::byte*>(scratch.data()));
        }
      }
    }
  }
}

std::string Chosen(const Case& c) {
  return PackGemm(Problem(c).weights(), AvailableIsas().back())->kernel_name();
}

TEST(Gemm, ChoosesTheFormatThatFitsTheMask) {
  const std::string isa = IsaName(AvailableIsas().back());
  if (isa == "reference") GTEST_SKIP() << "this machine has only the reference";
  const Case base{.m = 64, .k = 512, .columns = 64, .sparsity = 0.9};
  Case dense = base, unstructured = base, pairs = base;
  dense.sparsity = 0.1;
  pairs.mask = Mask::k2x1;
  EXPECT_EQ(Chosen(dense), "dense_" + isa);
  EXPECT_EQ(Chosen(unstructured), "sparse_1x1_" + isa);
  EXPECT_EQ(Chosen(pairs), "sparse_2x1_" + isa);
}

TEST(Gemm, EntriesOfSparseListsAreCounted) {
  // Nonzeros in columns 0, 3, 8 and 10 of row 0, in 3 and 9 of row 1, in none of row 2.
  std::vector<int8_t> values(3 * 11, 0);
  for (const size_t k : {0, 3, 8, 10}) values[k] = -128;
  for (const size_t k : {3, 9}) values[11 + k] = 1;
  const GemmWeights weights{.m = 3, .k = 11, .values = values, .epilogue = {}};
  EXPECT_EQ(CountEntries(weights, 1, 1), 6);
  EXPECT_EQ(CountEntries(weights, 2, 1), 5);  // 0, 3, 8, 9, 10
  EXPECT_EQ(CountEntries(weights, 1, 4), 2);
  EXPECT_EQ(CountEntries(weights, 4, 4), 2);
}

TEST(Gemm, TimingChangesNoBits) {
  for (double sparsity : {0.0, 0.5, 0.9}) {
    const Case c{.m = 33, .k = 200, .columns = 130, .sparsity = sparsity};
    Problem problem(c);
    const AlignedBuffer<uint8_t> x = problem.Activations();
    const std::vector<std::byte> expected = RunGemm(*PackReferenceGemm(problem.weights()), c, x);
    for (Isa isa : AvailableIsas()) {
      EXPECT_TRUE(RunGemm(*PackGemmTimed(problem.weights(), isa, c.columns), c, x) == expected);
      EXPECT_TRUE(RunGemm(*PackGemm(problem.weights(), isa), c, x) == expected);
    }
  }
}

TEST(Gemm, TimingNeverKeepsASparseKernelForDenseWeights) {
  const Case c{.m = 16, .k = 64, .columns = 64, .sparsity = 0.0};
  const std::string isa = IsaName(AvailableIsas().back());
  const std::string expected = isa == "reference" ? isa : "dense_" + isa;
  EXPECT_EQ(PackGemmTimed(Problem(c).weights(), AvailableIsas().back(), 64)->kernel_name(),
            expected);
}

}  // namespace
}  // namespace pared
