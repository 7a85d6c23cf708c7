// Times one INT8 GEMM on demand, for the script that compares with onnxruntime (tests/bench).
//
// Reads commands from standard input and answers each in one line:
//   load M K N ROWS COLUMNS PERCENT   packs weights of which PERCENT % are zero, dropped in blocks
//   of
//                                     ROWS x COLUMNS; answers the kernel that PackGemm chose
//   time N                            microseconds of CPU time of one run, mean of N
//   peak                              GOPS of independent vpdpbusd of 512 bits; 0 where there are
//   none

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/gemm.h"

namespace pared {
namespace {

double CpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Layer {
  int64_t m = 1, k = 1, n = 1, block_rows = 1, block_columns = 1;
  int percent = 0;
};

std::vector<int8_t> Weights(const Layer& layer) {
  std::mt19937 random(1);
  std::vector<int8_t> w(static_cast<size_t>(layer.m * layer.k));
  for (int64_t m0 = 0; m0 < layer.m; m0 += layer.block_rows) {
    for (int64_t k0 = 0; k0 < layer.k; k0 += layer.block_columns) {
      if (static_cast<int>(random() % 100) < layer.percent) continue;
      for (int64_t m = m0; m < std::min(m0 + layer.block_rows, layer.m); ++m) {
        for (int64_t k = k0; k < std::min(k0 + layer.block_columns, layer.k); ++k) {
          w[static_cast<size_t>(m * layer.k + k)] = static_cast<int8_t>(random() % 127 + 1);
        }
      }
    }
  }
  return w;
}

class Bench {
 public:
  explicit Bench(const Layer& layer)
      : columns_(layer.n),
        x_(static_cast<size_t>((layer.n + 63) / 64 * layer.k * 64)),
        y_(static_cast<size_t>((layer.n + 63) / 64 * layer.m * 64)) {
    const std::vector<int8_t> values = Weights(layer);
    GemmWeights weights{.m = layer.m, .k = layer.k, .values = values, .epilogue = {}};
    weights.epilogue.bias.assign(static_cast<size_t>(layer.m), 0);
    weights.epilogue.scale.assign(static_cast<size_t>(layer.m), 1e-3F);
    gemm_ = PackGemm(weights, SelectedIsa());
    scratch_ = AlignedBuffer<std::byte>(gemm_->scratch_bytes());
    std::mt19937 random(2);
    for (uint8_t& code : std::span(x_.data(), x_.size())) code = static_cast<uint8_t>(random());
  }

  const char* kernel() const { return gemm_->kernel_name(); }

  double MicrosecondsOf(int64_t runs) {
    const double start = CpuSeconds();
    for (int64_t i = 0; i < runs; ++i) {
      gemm_->RunColumns(x_.data(), columns_, y_.data(), scratch_.data());
    }
    return (CpuSeconds() - start) / static_cast<double>(runs) * 1e6;
  }

 private:
  int64_t columns_;
  AlignedBuffer<uint8_t> x_, y_;
  AlignedBuffer<std::byte> scratch_;
  std::unique_ptr<PackedGemm> gemm_;
};

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vnni")
#define DOT(i) "vpdpbusd %%zmm16, %%zmm16, %%zmm" #i "\n"
// Twelve independent sums: more than the latency of vpdpbusd times its rate.
double PeakGops() {
  if (!Includes(SelectedIsa(), Isa::kAvx512Vnni)) return 0;
  constexpr int kRounds = 100'000;
  const double start = CpuSeconds();
  for (int i = 0; i < kRounds; ++i) {
    asm volatile(DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10)
                     DOT(11)::
                         : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8",
                           "zmm9", "zmm10", "zmm11");
  }
  return 2.0 * kRounds * 12 * 64 * 1e-9 / (CpuSeconds() - start);
}
#undef DOT
#pragma GCC pop_options

int Main() {
  std::unique_ptr<Bench> bench;
  for (std::string command; std::cin >> command;) {
    if (command == "load") {
      Layer layer;
      std::cin >> layer.m >> layer.k >> layer.n >> layer.block_rows >> layer.block_columns >>
          layer.percent;
      bench = std::make_unique<Bench>(layer);
      std::cout << bench->kernel() << std::endl;
    } else if (command == "time" && bench != nullptr) {
      int64_t runs = 1;
      std::cin >> runs;
      std::cout << bench->MicrosecondsOf(runs) << std::endl;
    } else if (command == "peak") {
      std::cout << PeakGops() << std::endl;
    } else {
      std::cerr << "unknown command " << command << '\n';
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace pared

int main() { return pared::Main(); }
