// Every matrix-vector kernel that this machine can run, against sums written out here.

#include "kernels/gemv.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace pared {
namespace {

struct Problem {
  int64_t m, k, n;
  std::vector<int8_t> values;
  std::vector<uint8_t> x;
  GemmEpilogue epilogue;

  Problem(int64_t rows, int64_t depth, int64_t columns, GemmOutput output)
      : m(rows), k(depth), n(columns) {
    std::mt19937 random(static_cast<unsigned>(rows * 31 + depth));
    for (int64_t i = 0; i < m * k; ++i) {
      // Half zeros and, more often than chance has it, the extremes.
      const uint32_t kind = random() % 8;
      values.push_back(kind < 4    ? int8_t{0}
                       : kind == 4 ? int8_t{-128}
                                   : static_cast<int8_t>(random() % 256));
    }
    for (int64_t i = 0; i < n * k; ++i) {
      x.push_back(static_cast<uint8_t>(random() % 4 == 0 ? 255 : random() % 256));
    }
    for (int64_t i = 0; i < m; ++i) {
      epilogue.bias.push_back(static_cast<int32_t>(random() % 4001) - 2000);
      epilogue.scale.push_back(0.02F / static_cast<float>(1 + i % 5));
    }
    epilogue.output = output;
    epilogue.zero_point = 120;
    epilogue.low = 7;
    epilogue.high = 251;
  }

  GemmWeights weights() const { return {.m = m, .k = k, .values = values, .epilogue = epilogue}; }

  double Sum(int64_t row, int64_t column) const {
    int64_t sum = epilogue.bias[static_cast<size_t>(row)];
    for (int64_t i = 0; i < k; ++i) {
      sum += int64_t{values[static_cast<size_t>(row * k + i)]} *
             x[static_cast<size_t>(column * k + i)];
    }
    return static_cast<double>(sum);
  }

  // What the contract in gemm.h says of element [column][row] of y.
  double Expected(int64_t row, int64_t column) const {
    const double sum = Sum(row, column);
    if (epilogue.output == GemmOutput::kInt32) return sum;
    const float scaled = static_cast<float>(sum) * epilogue.scale[static_cast<size_t>(row)];
    if (epilogue.output == GemmOutput::kFloat32) return static_cast<double>(scaled);
    return std::clamp(std::nearbyint(static_cast<double>(scaled)) + 120.0, 7.0, 251.0);
  }
};

double ElementOf(const std::vector<std::byte>& y, int64_t at, GemmOutput output) {
  const auto read = [&](auto value) {
    std::memcpy(&value, y.data() + static_cast<size_t>(at) * sizeof value, sizeof value);
    return static_cast<double>(value);
  };
  if (output == GemmOutput::kUInt8) return read(uint8_t{});
  return output == GemmOutput::kInt32 ? read(int32_t{}) : read(float{});
}

TEST(Gemv, EveryKernelGivesTheExactSumsAtEachEdge) {
  const std::vector<Isa> here = AvailableIsas();
  for (const GemvCandidate& candidate : GemvCandidates()) {
    if (std::find(here.begin(), here.end(), candidate.isa) == here.end()) continue;
    for (const GemmOutput output : {GemmOutput::kUInt8, GemmOutput::kFloat32, GemmOutput::kInt32}) {
      for (const int64_t m : {1, 3, 4, 5, 16, 17, 40}) {
        for (const int64_t k : {1, 4, 15, 16, 17, 31, 64, 333}) {
          for (const int64_t n : {1, 3, 4, 5, 16}) {
            const Problem problem(m, k, n, output);
            std::vector<std::byte> y(static_cast<size_t>(n * m) * 4);
            candidate.pack(problem.weights())->Run(problem.x.data(), n, y.data());
            for (int64_t i = 0; i < n * m; ++i) {
              ASSERT_EQ(ElementOf(y, i, output), problem.Expected(i % m, i / m))
                  << candidate.name << " " << m << "x" << k << "x" << n << " element " << i;
            }
          }
        }
      }
    }
  }
}

TEST(Gemv, PartsOfTheRowsLeaveTheOthersAlone) {
  const Problem problem(50, 20, 2, GemmOutput::kUInt8);
  for (const Isa isa : AvailableIsas()) {
    const std::unique_ptr<PackedGemv> gemv = PackGemv(problem.weights(), isa);
    const int64_t blocks = gemv->row_blocks();
    std::vector<uint8_t> whole(100), parts(100, 1);
    gemv->Run(problem.x.data(), 2, whole.data());
    gemv->RunRows(problem.x.data(), 2, {blocks / 2, blocks}, parts.data());
    EXPECT_EQ(parts[0], 1) << "row 0 lies in the first block: " << gemv->kernel_name();
    gemv->RunRows(problem.x.data(), 2, {0, blocks / 2}, parts.data());
    EXPECT_EQ(parts, whole) << gemv->kernel_name();
  }
}

}  // namespace
}  // namespace pared
