#include "passes/layer_columns.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "evaluator/window.h"
#include "passes/each_row.h"

namespace pared {
namespace {

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

// What is taken of one sample.
struct Share {
  int64_t taken = 0, sample = 0;
};

// Gathers the inputs of the output positions of one sample.
class Gatherer {
 public:
  Gatherer(const WeightSite& site, const InputPart& part, bool with_largest)
      : site_(site), part_(part), with_largest_(with_largest) {
    if (site.node->op_type != "Conv") return;
    window_ = ReadWindow(*site.node);
    kernel_.assign(site.shape.begin() + 2, site.shape.end());
  }

  // The positions that are taken of `x`.
  int64_t CountOf(const Tensor& x, int64_t taken) const {
    if (site_.node->op_type != "Conv") return std::min(taken, x.count() / site_.layout.k);
    return std::min(taken, x.shape()[0] * PlanWindow(window_, x.shape(), kernel_).out_count());
  }

  // `columns`: [CountOf(x, share.taken)][part.size()].
  void Gather(const Tensor& x, const Share& share, float* columns) const {
    if (site_.node->op_type == "Conv") {
      GatherWindows(x, share, columns);
      return;
    }
    const int64_t k = site_.layout.k;
    const std::span<const float> values = x.data<float>();
    std::vector<int64_t> positions = ChoosePositions(x.count() / k, share.taken, share.sample);
    if (with_largest_ && x.count() > 0) AddLargest(values, k, positions);
    for (const int64_t at : positions) {
      columns = std::copy_n(values.begin() + at * k + part_.begin, part_.size(), columns);
    }
  }

  // Of a matrix product: what `original` has more than `edited`, both of the shape of the output
  // that `x` gives. `loss`: [CountOf(x, share.taken)][rows].
  void GatherLoss(const Tensor& x, const Tensor& original, const Tensor& edited, const Share& share,
                  float* loss) const {
    const int64_t rows = site_.layout.rows;
    Shape shape = x.shape();
    shape.back() = rows;
    const bool is_same = original.shape() == shape && edited.shape() == shape;
    const float part = static_cast<float>(part_.size()) / static_cast<float>(site_.layout.k);
    for (const int64_t at :
         ChoosePositions(x.count() / site_.layout.k, share.taken, share.sample)) {
      for (int64_t i = at * rows; i < (at + 1) * rows; ++i) {
        const size_t element = static_cast<size_t>(i);
        const float lost =
            is_same ? original.data<float>()[element] - edited.data<float>()[element] : 0;
        *loss++ = part * lost;
      }
    }
  }

 private:
  // In place of the first, so that every sample gives as many.
  static void AddLargest(std::span<const float> values, int64_t k,
                         std::vector<int64_t>& positions) {
    const auto by_magnitude = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    const int64_t row = (std::ranges::max_element(values, by_magnitude) - values.begin()) / k;
    if (std::ranges::find(positions, row) == positions.end()) positions[0] = row;
  }

  void GatherWindows(const Tensor& x, const Share& share, float* next) const {
    const Window w = PlanWindow(window_, x.shape(), kernel_);
    const int64_t channels = site_.shape[1], all = x.shape()[1];
    const std::span<const float> values = x.data<float>();
    const std::vector<Axes3> taps = TapsOf(w);
    std::vector<int64_t> offsets(taps.size());
    const std::vector<int64_t> positions =
        ChoosePositions(x.shape()[0] * w.out_count(), share.taken, share.sample);
    for (const int64_t at : positions) {
      const int64_t image = at / w.out_count(), pixel = at % w.out_count();
      const Axes3 out = {pixel / (w.out[1] * w.out[2]), pixel / w.out[2] % w.out[1],
                         pixel % w.out[2]};
      for (size_t tap = 0; tap < taps.size(); ++tap) offsets[tap] = OffsetOf(w, out, taps[tap]);
      for (int64_t c = part_.begin / w.taps(); c * w.taps() < part_.end; ++c) {
        const int64_t plane = (image * all + part_.group * channels + c) * w.in_count();
        const int64_t first = c * w.taps();
        const int64_t end = std::min(w.taps(), part_.end - first);
        for (int64_t tap = std::max<int64_t>(0, part_.begin - first); tap < end; ++tap) {
          const int64_t offset = offsets[static_cast<size_t>(tap)];
          *next++ = offset < 0 ? 0.0f : values[static_cast<size_t>(plane + offset)];
        }
      }
    }
  }

  // Where each tap lies from the first, in input pixels.
  static std::vector<Axes3> TapsOf(const Window& w) {
    std::vector<Axes3> taps;
    for (int64_t tap = 0; tap < w.taps(); ++tap) {
      taps.push_back({tap / (w.kernel[1] * w.kernel[2]) * w.dilation[0],
                      tap / w.kernel[2] % w.kernel[1] * w.dilation[1],
                      tap % w.kernel[2] * w.dilation[2]});
    }
    return taps;
  }

  // Within a channel; -1: in the padding.
  static int64_t OffsetOf(const Window& w, const Axes3& out, const Axes3& tap) {
    int64_t offset = 0;
    for (size_t axis = 0; axis < 3; ++axis) {
      const int64_t at = out[axis] * w.stride[axis] + tap[axis] - w.pad_begin[axis];
      if (at < 0 || at >= w.in[axis]) return -1;
      offset = offset * w.in[axis] + at;
    }
    return offset;
  }

  const WeightSite& site_;
  InputPart part_;
  bool with_largest_;
  WindowAttributes window_;
  std::vector<int64_t> kernel_;
};

// Of a row; sums over all rows stay finite in single precision.
constexpr double kEnergyMax = 1e30;

// One matrix of the columns, `width` wide.
struct Rows {
  std::vector<float>* values;
  int64_t width;

  bool IsUsable(int64_t row) const {
    const auto from = values->begin() + row * width;
    const double energy = std::transform_reduce(from, from + width, 0.0, std::plus<>(),
                                                [](double x) { return x * x; });
    return energy <= kEnergyMax;  // not of NaN
  }
};

void LeaveOut(LayerColumns& columns, int64_t rows) {
  std::vector<Rows> matrices = {{&columns.original, columns.k}, {&columns.edited, columns.k}};
  if (!columns.skip_loss.empty()) matrices.push_back({&columns.skip_loss, rows});
  std::vector<char> is_usable(static_cast<size_t>(columns.count));
  ForEachRow(columns.count, columns.k, [&](int64_t row) {
    is_usable[static_cast<size_t>(row)] =
        std::ranges::all_of(matrices, [&](const Rows& m) { return m.IsUsable(row); });
  });
  const int64_t used = std::ranges::count(is_usable, 1);
  if (used == columns.count) return;
  for (const Rows& m : matrices) {
    auto to = m.values->begin();
    for (int64_t row = 0; row < columns.count; ++row) {
      const auto from = m.values->begin() + row * m.width;
      if (is_usable[static_cast<size_t>(row)]) to = std::copy(from, from + m.width, to);
    }
    m.values->erase(to, m.values->end());
  }
  columns.left_out = columns.count - used;
  columns.count = used;
}

constexpr int64_t kWholeMax = 4608, kPart = 1024;
constexpr int64_t kReadLeast = 1 << 14;

}  // namespace

InputPart WholeGroup(const WeightSite& site, int64_t group) { return {group, 0, site.layout.k}; }

std::vector<InputPart> PartsOf(const WeightSite& site, int64_t multiple) {
  const int64_t k = site.layout.k;
  const int64_t step = k <= kWholeMax ? k : std::max(multiple, kPart / multiple * multiple);
  std::vector<InputPart> parts;
  for (int64_t group = 0; group < site.layout.groups; ++group) {
    for (int64_t begin = 0; begin < k; begin += step) {
      parts.push_back({group, begin, std::min(begin + step, k)});
    }
  }
  return parts;
}

std::optional<LayerColumns> TakeColumns(const LayerStream& stream, const ColumnsRequest& request) {
  const WeightSite& site = *request.site;
  const int64_t samples = std::max<int64_t>(1, stream.sample_count());
  const int64_t each = (request.columns + samples - 1) / samples;
  const Gatherer gatherer(site, request.part, request.with_largest);
  struct Part {
    const Tensor *original, *edited;
    Share share;
    int64_t begin;  // of its columns
  };
  std::vector<Part> parts;
  LayerColumns columns;
  columns.k = request.part.size();
  for (int64_t sample = request.fold; sample < stream.sample_count(); sample += request.folds) {
    const Tensor* original = stream.Original(sample, site.node->inputs[0]);
    const Tensor* edited = stream.Edited(sample, site.node->inputs[0]);
    if (original == nullptr || edited == nullptr) return std::nullopt;
    if (original->dtype() != DType::kFloat32 || original->shape() != edited->shape()) {
      return std::nullopt;
    }
    parts.push_back({original, edited, {each, sample}, columns.count});
    columns.count += gatherer.CountOf(*original, each);
  }
  const auto size = [&](int64_t width) { return static_cast<size_t>(columns.count * width); };
  columns.original.resize(size(columns.k));
  columns.edited.resize(size(columns.k));
  if (!request.skip.empty()) columns.skip_loss.resize(size(site.layout.rows));
  tbb::parallel_for(size_t{0}, parts.size(), [&](size_t i) {
    const Part& p = parts[i];
    gatherer.Gather(*p.original, p.share, columns.original.data() + p.begin * columns.k);
    gatherer.Gather(*p.edited, p.share, columns.edited.data() + p.begin * columns.k);
    // The kernel maps neighbours of a page along with it.
    stream.CountRead(2 *
                     std::max(kReadLeast, std::ssize(p.original->bytes()) / site.layout.groups));
    if (request.skip.empty()) return;
    const Tensor& original = *stream.Original(p.share.sample, request.skip);
    const Tensor& edited = *stream.Edited(p.share.sample, request.skip);
    gatherer.GatherLoss(*p.original, original, edited, p.share,
                        columns.skip_loss.data() + p.begin * site.layout.rows);
    stream.CountRead(2 * std::ssize(original.bytes()));
  });
  LeaveOut(columns, site.layout.rows);
  return columns;
}

std::vector<double> PositionWeights(const WeightSite& site, const std::vector<float>& y,
                                    int64_t rows) {
  const size_t count = y.size() / static_cast<size_t>(rows);
  std::vector<double> energy(count, 0.0);
  double all = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const double square = static_cast<double>(y[i]) * y[i];
    energy[i / static_cast<size_t>(rows)] += square;
    all += square;
  }
  if (site.node->op_type == "Conv") {
    return std::vector<double>(count, all > 0 ? 1 / all : 0);
  }
  std::vector<double> sorted = energy;
  std::ranges::sort(sorted);
  const double middle = sorted.empty() ? 0 : sorted[count / 2];
  std::vector<double> weights;
  for (const double row : energy) {
    const double sum = row + middle;
    weights.push_back(sum > 0 ? 1 / (sum * static_cast<double>(count)) : 0);
  }
  return weights;
}

}  // namespace pared
