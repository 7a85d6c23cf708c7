// INT8 GEMM kernels over the layers of ResNet-50, MobileNet-v2 and BERT-base: effective GOPS
// (2 m k n / time, zeros counted) beside the vpdpbusd peak measured in the same process.
//
// Then 3x3 convolutions whole, from planar images, as gathered operands and by Winograd's
// algorithm: conv_CHANNELSxMxSIZE/PERCENT/KERNEL.
//
//   kernels_bench --benchmark_filter='/90' --benchmark_repetitions=5

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/gemm.h"
#include "kernels/winograd.h"

namespace pared {
namespace {

struct Layer {
  const char* model;
  int64_t m, k, n;
};

constexpr std::array kLayers = {
    Layer{"rn50", 64, 64, 3136},   Layer{"rn50", 256, 64, 3136},  Layer{"rn50", 64, 256, 3136},
    Layer{"rn50", 64, 576, 3136},  Layer{"rn50", 512, 128, 784},  Layer{"rn50", 128, 512, 784},
    Layer{"rn50", 128, 1152, 784}, Layer{"rn50", 1024, 256, 196}, Layer{"rn50", 256, 1024, 196},
    Layer{"rn50", 256, 2304, 196}, Layer{"rn50", 2048, 512, 49},  Layer{"rn50", 512, 2048, 49},
    Layer{"rn50", 512, 4608, 49},  Layer{"mbv2", 96, 16, 12544},  Layer{"mbv2", 24, 144, 3136},
    Layer{"mbv2", 192, 32, 784},   Layer{"mbv2", 384, 64, 196},   Layer{"mbv2", 96, 576, 196},
    Layer{"mbv2", 960, 160, 49},   Layer{"mbv2", 320, 960, 49},   Layer{"mbv2", 1280, 320, 49},
    Layer{"bert", 768, 768, 128},  Layer{"bert", 3072, 768, 128}, Layer{"bert", 768, 3072, 128},
};

// What a mask drops together: rows x columns of weights.
struct Pattern {
  const char* name;
  int64_t rows, columns;
};
constexpr std::array kPatterns = {Pattern{"any", 1, 1}, Pattern{"2x1", 2, 1}, Pattern{"4x1", 4, 1},
                                  Pattern{"1x4", 1, 4}, Pattern{"4x4", 4, 4}};

std::vector<int8_t> Weights(const Layer& layer, const Pattern& pattern, int percent) {
  std::mt19937 random(1);
  std::vector<int8_t> w(static_cast<size_t>(layer.m * layer.k));
  for (int64_t m0 = 0; m0 < layer.m; m0 += pattern.rows) {
    for (int64_t k0 = 0; k0 < layer.k; k0 += pattern.columns) {
      if (static_cast<int>(random() % 100) < percent) continue;
      for (int64_t m = m0; m < std::min(m0 + pattern.rows, layer.m); ++m) {
        for (int64_t k = k0; k < std::min(k0 + pattern.columns, layer.k); ++k) {
          w[static_cast<size_t>(m * layer.k + k)] = static_cast<int8_t>(random() % 127 + 1);
        }
      }
    }
  }
  return w;
}

struct Run {
  Layer layer;
  Pattern pattern;
  int percent;
  const GemmCandidate* candidate;  // null: what PackGemm chooses
};

void RunGemm(benchmark::State& state, const Run& run) {
  const Layer& l = run.layer;
  const std::vector<int8_t> values = Weights(l, run.pattern, run.percent);
  GemmWeights weights{.m = l.m, .k = l.k, .values = values, .epilogue = {}};
  weights.epilogue.bias.assign(static_cast<size_t>(l.m), 0);
  weights.epilogue.scale.assign(static_cast<size_t>(l.m), 1e-3F);
  const auto gemm =
      run.candidate != nullptr ? run.candidate->pack(weights) : PackGemm(weights, SelectedIsa());
  const int64_t tiles = (l.n + 63) / 64;
  AlignedBuffer<uint8_t> x(static_cast<size_t>(tiles * l.k * 64));
  AlignedBuffer<uint8_t> y(static_cast<size_t>(tiles * l.m * 64));
  AlignedBuffer<std::byte> scratch(gemm->scratch_bytes());
  for (auto _ : state) {
    gemm->RunColumns(x.data(), l.n, y.data(), scratch.data());
    benchmark::ClobberMemory();
  }
  const double ops = 2.0 * static_cast<double>(l.m * l.k * l.n);
  state.counters["GOPS"] =
      benchmark::Counter(ops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.SetLabel(gemm->kernel_name());
}

#pragma GCC push_options
#pragma GCC target("avx512f,avx512vnni")
// Twelve independent sums: more than the latency of vpdpbusd times its rate.
#define DOT(i) "vpdpbusd %%zmm16, %%zmm16, %%zmm" #i "\n"
void PeakAvx512Vnni(benchmark::State& state) {
  constexpr int64_t kRounds = 1000;
  for (auto _ : state) {
    for (int64_t i = 0; i < kRounds; ++i) {
      asm volatile(DOT(0) DOT(1) DOT(2) DOT(3) DOT(4) DOT(5) DOT(6) DOT(7) DOT(8) DOT(9) DOT(10)
                       DOT(11)::
                           : "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8",
                             "zmm9", "zmm10", "zmm11");
    }
  }
  state.counters["GOPS"] = benchmark::Counter(2.0 * kRounds * 12 * 64 * 1e-9,
                                              benchmark::Counter::kIsIterationInvariantRate);
}
#undef DOT
#pragma GCC pop_options

// A 3x3 convolution of a square image.
struct Conv {
  int64_t channels, m, size;
  int percent = 0;  // of the weights that are zero

  ConvGeometry geometry() const {
    return {.channels = channels,
            .height = size,
            .width = size,
            .kernel_height = 3,
            .kernel_width = 3,
            .pad_top = 1,
            .pad_left = 1,
            .pad_bottom = 1,
            .pad_right = 1};
  }
};

constexpr std::array kConvs = {
    Conv{64, 64, 56}, Conv{128, 128, 28}, Conv{256, 256, 14}, Conv{512, 512, 7}, Conv{16, 16, 160},
    Conv{32, 32, 80}, Conv{64, 64, 40},   Conv{128, 128, 20}, Conv{64, 80, 80},  Conv{256, 80, 20},
    Conv{3, 16, 160}, Conv{8, 8, 80},     Conv{64, 64, 10},   Conv{64, 64, 7},   Conv{256, 256, 10},
};

struct ConvData {
  explicit ConvData(const Conv& conv)
      : values(Weights({"", conv.m, conv.geometry().k(), 0}, kPatterns[0], conv.percent)),
        x(static_cast<size_t>(conv.geometry().out_tiles() * conv.channels * 64)),
        y(static_cast<size_t>(conv.geometry().out_tiles() * conv.m * 64)) {
    for (size_t i = 0; i < values.size(); i += 2) values[i] = static_cast<int8_t>(-values[i]);
    weights = {.m = conv.m, .k = conv.geometry().k(), .values = values, .epilogue = {}};
    weights.epilogue.bias.assign(static_cast<size_t>(conv.m), 0);
    weights.epilogue.scale.assign(static_cast<size_t>(conv.m), 1e-4F);
  }

  std::vector<int8_t> values;
  GemmWeights weights;
  AlignedBuffer<uint8_t> x, y;
};

void CountConv(benchmark::State& state, const Conv& conv) {
  const ConvGeometry g = conv.geometry();
  const auto macs = static_cast<double>(g.out_pixels() * conv.m * g.k());
  state.counters["GOPS"] =
      benchmark::Counter(2e-9 * macs, benchmark::Counter::kIsIterationInvariantRate);
}

void RunGatheredConv(benchmark::State& state, const Conv& conv) {
  ConvData data(conv);
  const ConvGeometry g = conv.geometry();
  const auto gemm = PackGemm(data.weights, SelectedIsa());
  const Im2col im2col(g, SelectedIsa());
  AlignedBuffer<uint8_t> padded(im2col.image_bytes()), operand(im2col.tile_bytes());
  AlignedBuffer<std::byte> scratch(gemm->scratch_bytes());
  for (auto _ : state) {
    im2col.PadPlanar({data.x.data(), 0, conv.channels}, 0, 0, conv.channels, padded.data());
    for (int64_t tile = 0; tile < g.out_tiles(); ++tile) {
      im2col.GatherTile(padded.data(), tile, operand.data());
      const int64_t columns = std::min<int64_t>(64, g.out_pixels() - tile * 64);
      gemm->RunColumns(operand.data(), columns, data.y.data() + tile * conv.m * 64, scratch.data());
    }
  }
  state.SetLabel(gemm->kernel_name());
  CountConv(state, conv);
}

void RunWinogradConv(benchmark::State& state, const Conv& conv) {
  ConvData data(conv);
  const PackedWinograd winograd(data.weights);
  const WinogradPlan plan(conv.geometry(), winograd.block_tiles(), Isa::kAvx2);
  AlignedBuffer<uint8_t> padded(plan.im2col().image_bytes());
  AlignedBuffer<std::byte> operand(winograd.operand_bytes(plan.columns_max()));
  AlignedBuffer<std::byte> scratch(winograd.scratch_bytes(plan.columns_max()));
  for (auto _ : state) {
    plan.im2col().PadPlanar({data.x.data(), 0, conv.channels}, 0, 0, conv.channels, padded.data());
    for (int64_t block = 0; block < std::ssize(plan.blocks()); ++block) {
      winograd.Transform(padded.data(), {&plan, block, 0, winograd.pairs()}, operand.data());
      winograd.Run(operand.data(), {&plan, block, 0, winograd.groups()}, {data.y.data()},
                   scratch.data());
    }
  }
  CountConv(state, conv);
}

void RegisterConvs() {
  for (const Conv& layer : kConvs) {
    const std::string name = "conv_" + std::to_string(layer.channels) + "x" +
                             std::to_string(layer.m) + "x" + std::to_string(layer.size);
    for (const int percent : {0, 60, 70, 80, 90}) {
      Conv conv = layer;
      conv.percent = percent;
      benchmark::RegisterBenchmark((name + "/" + std::to_string(percent) + "/gathered").c_str(),
                                   [conv](benchmark::State& s) { RunGatheredConv(s, conv); });
    }
    if (SelectedIsa() != Isa::kAvx2) continue;
    benchmark::RegisterBenchmark((name + "/0/winograd_avx2").c_str(),
                                 [layer](benchmark::State& s) { RunWinogradConv(s, layer); });
  }
}

std::string Name(const Run& run, const char* kernel) {
  const Layer& l = run.layer;
  return std::string(l.model) + "_" + std::to_string(l.m) + "x" + std::to_string(l.k) + "x" +
         std::to_string(l.n) + "/" + run.pattern.name + "/" + std::to_string(run.percent) + "/" +
         kernel;
}

void RegisterAll() {
  if (Includes(SelectedIsa(), Isa::kAvx512Vnni)) {
    benchmark::RegisterBenchmark("peak_vpdpbusd", PeakAvx512Vnni);
  }
  for (const Layer& layer : kLayers) {
    for (const GemmCandidate& candidate : GemmCandidates()) {
      const bool is_dense = std::string(candidate.name).starts_with("dense");
      if (!is_dense || !Includes(SelectedIsa(), candidate.isa)) continue;
      const Run run{layer, kPatterns[0], 0, &candidate};
      benchmark::RegisterBenchmark(Name(run, candidate.name).c_str(),
                                   [run](benchmark::State& s) { RunGemm(s, run); });
    }
    for (const Pattern& pattern : kPatterns) {
      for (int percent : {50, 70, 80, 90, 95, 98}) {
        const Run run{layer, pattern, percent, nullptr};
        benchmark::RegisterBenchmark(Name(run, "chosen").c_str(),
                                     [run](benchmark::State& s) { RunGemm(s, run); });
      }
    }
  }
}

}  // namespace
}  // namespace pared

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("cpu", pared::CpuName());
  benchmark::AddCustomContext("isa", pared::IsaName(pared::SelectedIsa()));
  pared::RegisterAll();
  pared::RegisterConvs();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
