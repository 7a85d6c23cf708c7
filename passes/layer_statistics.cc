#include "passes/layer_statistics.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>

#include "evaluator/window.h"
#include "kernels/gemm_f32.h"

namespace pared {
namespace {

constexpr int64_t kColumnsMin = 2048, kColumnsMax = 8192;  // of all samples together
constexpr int64_t kColumnsPerInput = 4;                    // wanted for each k
constexpr int64_t kFloatsMax = int64_t{1} << 24;           // of the gathered columns

int64_t ColumnsWanted(int64_t k) {
  const int64_t wanted = std::clamp(kColumnsPerInput * k, kColumnsMin, kColumnsMax);
  return std::max<int64_t>(1, std::min(wanted, kFloatsMax / k));
}

// `taken` of `count` positions: one at a scattered place of each of `taken` equal stretches, so
// that no column of an image is preferred.
std::vector<int64_t> ChoosePositions(int64_t count, int64_t taken, int64_t sample) {
  std::vector<int64_t> positions;
  if (taken >= count) {
    for (int64_t i = 0; i < count; ++i) positions.push_back(i);
    return positions;
  }
  for (int64_t i = 0; i < taken; ++i) {
    const int64_t begin = i * count / taken, end = (i + 1) * count / taken;
    const uint64_t scattered =
        static_cast<uint64_t>(sample * taken + i + 1) * 0x9E3779B97F4A7C15u >> 33;
    positions.push_back(begin +
                        static_cast<int64_t>(scattered) % std::max<int64_t>(1, end - begin));
  }
  return positions;
}

// Appends the inputs of the output positions of one sample.
class Gatherer {
 public:
  Gatherer(const WeightSite& site, int64_t group) : site_(site), group_(group) {
    if (site.node->op_type != "Conv") return;
    window_ = ReadWindow(*site.node);
    kernel_.assign(site.shape.begin() + 2, site.shape.end());
  }

  void Add(const Tensor& x, int64_t taken, int64_t sample, std::vector<float>& columns) const {
    if (site_.node->op_type == "Conv") {
      AddWindows(x, taken, sample, columns);
      return;
    }
    const int64_t k = site_.layout.k;
    const std::span<const float> values = x.data<float>();
    for (const int64_t at : ChoosePositions(x.count() / k, taken, sample)) {
      const auto row = values.begin() + at * k;
      columns.insert(columns.end(), row, row + k);
    }
  }

 private:
  void AddWindows(const Tensor& x, int64_t taken, int64_t sample,
                  std::vector<float>& columns) const {
    const Window w = PlanWindow(window_, x.shape(), kernel_);
    const int64_t channels = site_.shape[1], all = x.shape()[1];
    const std::span<const float> values = x.data<float>();
    for (const int64_t at : ChoosePositions(x.shape()[0] * w.out_count(), taken, sample)) {
      const int64_t image = at / w.out_count(), pixel = at % w.out_count();
      const Axes3 out = {pixel / (w.out[1] * w.out[2]), pixel / w.out[2] % w.out[1],
                         pixel % w.out[2]};
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t plane = (image * all + group_ * channels + c) * w.in_count();
        for (int64_t tap = 0; tap < w.taps(); ++tap) {
          const int64_t offset = OffsetOf(w, out, tap);
          columns.push_back(offset < 0 ? 0.0f : values[static_cast<size_t>(plane + offset)]);
        }
      }
    }
  }

  // Within a channel; -1: in the padding.
  static int64_t OffsetOf(const Window& w, const Axes3& out, int64_t tap) {
    const Axes3 taps = {tap / (w.kernel[1] * w.kernel[2]), tap / w.kernel[2] % w.kernel[1],
                        tap % w.kernel[2]};
    int64_t offset = 0;
    for (size_t axis = 0; axis < 3; ++axis) {
      const int64_t at =
          out[axis] * w.stride[axis] + taps[axis] * w.dilation[axis] - w.pad_begin[axis];
      if (at < 0 || at >= w.in[axis]) return -1;
      offset = offset * w.in[axis] + at;
    }
    return offset;
  }

  const WeightSite& site_;
  int64_t group_;
  WindowAttributes window_;
  std::vector<int64_t> kernel_;
};

std::vector<double> TakeMeans(std::vector<float>& rows, int64_t width, bool is_centered) {
  std::vector<double> means(static_cast<size_t>(width), 0.0);
  if (!is_centered || rows.empty()) return means;
  const size_t size = means.size(), count = rows.size() / size;
  for (size_t i = 0; i < rows.size(); ++i) means[i % size] += rows[i];
  for (double& mean : means) mean /= static_cast<double>(count);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] -= static_cast<float>(means[i % size]);
  return means;
}

}  // namespace

std::string WhyNoStatistics(const WeightSite& site) {
  const std::string& op = site.node->op_type;
  if (op != "Conv" && op != "Gemm" && op != "MatMul") return "no least squares for " + op;
  if (site.stored.dtype() != DType::kFloat32) return "its weight is no float32";
  if (site.input != 1) return "its weight is the left operand";
  if (op == "MatMul" && site.layout.groups != 1) return "its weight is a batch of matrices";
  if (op == "Gemm" && (site.node->Int("transA", 0) != 0 || site.node->Float("alpha", 1) != 1 ||
                       site.node->Float("beta", 1) != 1)) {
    return "its Gemm has transA, alpha or beta";
  }
  return "";
}

std::vector<float> GroupWeight(const WeightSite& site, int64_t group) {
  const MatrixLayout& layout = site.layout;
  const std::span<const float> stored = site.stored.data<float>();
  std::vector<float> weight;
  weight.reserve(static_cast<size_t>(layout.rows * layout.k));
  for (int64_t row = 0; row < layout.rows; ++row) {
    for (int64_t k = 0; k < layout.k; ++k) {
      const int64_t at = site.StoredIndex(layout.Index(group, row, k));
      weight.push_back(stored[static_cast<size_t>(at)]);
    }
  }
  return weight;
}

std::vector<float> Multiply(const Product& product, const std::vector<float>& a,
                            const std::vector<float>& b) {
  const auto& [m, n, k, is_a_transposed, is_b_transposed] = product;
  const F32Kernels& kernels = F32KernelsFor(SelectedIsa());
  std::vector<float> c(static_cast<size_t>(m * n));
  std::vector<float> lhs(static_cast<size_t>(PackedLhsFloats(m, k, kernels)));
  std::vector<float> rhs(static_cast<size_t>(PackedRhsFloats(k, n, kernels)));
  PackLhs({a.data(), m, k, is_a_transposed ? 1 : k, is_a_transposed ? m : 1}, kernels, lhs.data());
  GemmF32 gemm;
  gemm.m = m;
  gemm.n = n;
  gemm.k = k;
  gemm.b = rhs.data();
  gemm.c = c.data();
  gemm.c_row = n;
  SetPackedLhs(gemm, lhs.data(), kernels);
  const MatrixF32 right = {b.data(), k, n, is_b_transposed ? 1 : n, is_b_transposed ? k : 1};
  const int64_t blocks = RowBlocks(gemm, kernels), panels = Panels(gemm, kernels);
  tbb::parallel_for(tbb::blocked_range<int64_t>(0, panels), [&](const auto& range) {
    PackRhs(right, kernels, range.begin(), range.end(), rhs.data());
    RunGemm(gemm, kernels, {0, blocks, range.begin(), range.end()});
  });
  return c;
}

std::optional<LayerStatistics> TakeStatistics(const LayerStream& stream,
                                              const StatisticsRequest& request) {
  const WeightSite& site = *request.site;
  const int64_t k = site.layout.k, rows = site.layout.rows;
  const int64_t each =
      (ColumnsWanted(k) + stream.sample_count() - 1) / std::max<int64_t>(1, stream.sample_count());
  const Gatherer gatherer(site, request.group);
  std::vector<float> x0, x;  // [count][k]
  for (int64_t sample = request.fold; sample < stream.sample_count(); sample += request.folds) {
    const Tensor* original = stream.Original(sample, site.node->inputs[0]);
    const Tensor* edited = stream.Edited(sample, site.node->inputs[0]);
    if (original == nullptr || edited == nullptr) return std::nullopt;
    if (original->dtype() != DType::kFloat32 || original->shape() != edited->shape()) {
      return std::nullopt;
    }
    gatherer.Add(*original, each, sample, x0);
    gatherer.Add(*edited, each, sample, x);
  }
  LayerStatistics s;
  s.k = k;
  s.rows = rows;
  s.count = std::ssize(x) / k;
  std::vector<float> y =
      Multiply({s.count, rows, k, false, true}, x0, GroupWeight(site, request.group));
  s.x_mean = TakeMeans(x, k, request.is_centered);
  s.y_mean = TakeMeans(y, rows, request.is_centered);
  s.h = Multiply({k, k, s.count, true, false}, x, x);
  s.g = Multiply({rows, k, s.count, true, false}, y, x);
  s.y_square.assign(static_cast<size_t>(rows), 0.0);
  for (size_t i = 0; i < y.size(); ++i) {
    s.y_square[i % static_cast<size_t>(rows)] += static_cast<double>(y[i]) * y[i];
  }
  return s;
}

}  // namespace pared
