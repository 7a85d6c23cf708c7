#include "passes/calibrate.h"

#include <tbb/parallel_pipeline.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "evaluator/executor.h"
#include "evaluator/fuse_float.h"
#include "kernels/histogram.h"
#include "model/rewrite.h"
#include "passes/own_copy.h"
#include "passes/shared_statistics.h"

namespace pared {
namespace {

constexpr double kBadShareMax = 1e-3;
constexpr int kSteps = 255;

double CenterOf(int bin) {
  const int octave = HistogramBins::kOctaveMin + bin / HistogramBins::kSubBins;
  const double within = (bin % HistogramBins::kSubBins + 0.5) / HistogramBins::kSubBins;
  return std::ldexp(1 + within, octave);
}

// One element a channel, which are neighbours.
void AddRow(std::span<const float> row, ChannelStats& stats) {
  for (size_t i = 0; i < row.size(); ++i) {
    const float magnitude = std::fabs(row[i]);
    const bool is_finite = magnitude <= std::numeric_limits<float>::max();
    stats.sums[i] += is_finite ? static_cast<double>(row[i]) : 0;
    stats.magnitudes[i] = std::max(stats.magnitudes[i], is_finite ? magnitude : 0);
  }
}

void AddChannels(const Tensor& tensor, ChannelStats& stats) {
  const int64_t rank = tensor.rank();
  const int64_t axis = stats.axis < 0 ? stats.axis + rank : stats.axis;
  if (axis < 0 || axis >= rank || tensor.count() == 0) return;
  const Shape& shape = tensor.shape();
  const int64_t channels = shape[static_cast<size_t>(axis)];
  const int64_t inner = ElementCount({shape.begin() + axis + 1, shape.end()});
  const size_t size = static_cast<size_t>(channels);
  stats.sums.resize(std::max(stats.sums.size(), size));
  stats.magnitudes.resize(std::max(stats.magnitudes.size(), size));
  const float* at = tensor.data<float>().data();
  const int64_t outer = tensor.count() / (channels * inner);
  stats.count += outer * inner;
  if (inner == 1) {
    for (int64_t i = 0; i < outer; ++i, at += channels) AddRow({at, size}, stats);
    return;
  }
  const Isa isa = SelectedIsa();
  for (int64_t i = 0; i < outer * channels; ++i, at += inner) {
    const FiniteSum sum = SumFinite({at, static_cast<size_t>(inner)}, isa);
    const size_t channel = static_cast<size_t>(i % channels);
    stats.sums[channel] += sum.sum;
    stats.magnitudes[channel] = std::max(stats.magnitudes[channel], sum.largest);
  }
}

void Join(const ChannelStats& part, ChannelStats& sum) {
  sum.sums.resize(std::max(sum.sums.size(), part.sums.size()));
  sum.magnitudes.resize(sum.sums.size());
  for (size_t i = 0; i < part.sums.size(); ++i) {
    sum.sums[i] += part.sums[i];
    sum.magnitudes[i] = std::max(sum.magnitudes[i], part.magnitudes[i]);
  }
  sum.count += part.count;
}

void Join(const Calibration& part, Calibration& sum) {
  for (const auto& [value, sketch] : part.sketches) sum.sketches.at(value).Add(sketch);
  for (const auto& [value, stats] : part.channels) Join(stats, sum.channels.at(value));
}

void CheckSketch(const std::string& value, const Sketch& sketch) {
  const int64_t bad = sketch.nan_count() + sketch.infinite_count();
  if (static_cast<double>(bad) <= kBadShareMax * static_cast<double>(sketch.count())) return;
  throw Error(ErrorCode::kInvalidArgument,
              std::to_string(sketch.nan_count()) + " NaN and " +
                  std::to_string(sketch.infinite_count()) + " infinite of " +
                  std::to_string(sketch.count()) +
                  " elements on the calibration data: no range can be set",
              "value " + value);
}

}  // namespace

int64_t Sketch::bytes() const { return static_cast<int64_t>(sizeof(*this) + 8 * counts_.size()); }

void Sketch::Add(std::span<const float> elements, bool with_bins) {
  if (with_bins) counts_.resize(kHistogramPlaces);
  const HistogramEnds ends =
      AddToHistogram(elements, with_bins ? counts_.data() : nullptr, SelectedIsa());
  count_ += std::ssize(elements);
  min_ = std::min(min_, ends.min);
  max_ = std::max(max_, ends.max);
  nan_count_ += ends.nan_count;
  infinite_count_ += ends.infinite_count;
}

void Sketch::Add(const Sketch& other) {
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  count_ += other.count_;
  nan_count_ += other.nan_count_;
  infinite_count_ += other.infinite_count_;
  if (!other.has_bins()) return;
  counts_.resize(kHistogramPlaces);
  for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
}

std::vector<Sketch::Bin> Sketch::FilledBins() const {
  std::vector<Bin> bins;
  if (counts_.empty()) return bins;
  const auto add = [&](double center, int64_t count) {
    if (count > 0) bins.push_back({center, count});
  };
  constexpr int kBins = HistogramBins::kOfSign;
  // The last bin has no end of its own: it stands for the largest of its numbers.
  const auto center = [&](int bin, double end) {
    return bin == kBins - 1 ? std::max(CenterOf(bin), end) : CenterOf(bin);
  };
  const ValueRange ends = min_max();
  for (int i = kBins - 1; i >= 0; --i) {
    add(-center(i, -double{ends.min}), counts_[static_cast<size_t>(kBins + i)]);
  }
  const auto zeros = counts_.begin() + kZeroPlace;
  add(0, std::reduce(zeros, zeros + kZeroPlaces));
  for (int i = 0; i < kBins; ++i) add(center(i, ends.max), counts_[static_cast<size_t>(i)]);
  return bins;
}

ValueRange Sketch::Percentile(double percentile) const {
  const std::vector<Bin> bins = FilledBins();
  const double cut =
      static_cast<double>(count_ - nan_count_ - infinite_count_) * (1 - percentile / 100);
  size_t low = 0, high = bins.size();
  double removed = 0;
  while (low + 1 < high) {
    const Bin& outer =
        std::fabs(bins[low].center) > std::fabs(bins[high - 1].center) ? bins[low] : bins[high - 1];
    removed += static_cast<double>(outer.count);
    if (removed > cut) break;
    if (&outer == &bins[low]) {
      ++low;
    } else {
      --high;
    }
  }
  ValueRange range = min_max();
  // What nothing was cut from keeps its exact end.
  if (low > 0) range.min = static_cast<float>(std::min(bins[low].center, 0.0));
  if (high < bins.size()) range.max = static_cast<float>(std::max(bins[high - 1].center, 0.0));
  return range;
}

ValueRange RangeOf(const Sketch& sketch, RangeMethod method, double percentile) {
  switch (method) {
    case RangeMethod::kPercentile:
      return sketch.Percentile(percentile);
    case RangeMethod::kEntropy:
      return sketch.LeastDivergence();
    case RangeMethod::kMse:
      return sketch.LeastSquaredError();
    case RangeMethod::kMinMax:
      break;
  }
  return sketch.min_max();
}

// A bin of values that lie evenly in it.
struct WideBin {
  double center, count;
  double width;  // 0: all of them are zero
};

static double WidthAt(double center) {
  int exponent = 0;
  std::frexp(center, &exponent);
  return center == 0 ? 0 : std::ldexp(1.0 / HistogramBins::kSubBins, exponent - 1);
}

// Mean squared distance to the nearest multiple of `step` of what lies in the bin.
static double RoundingError(const WideBin& bin, double step) {
  if (bin.width == 0) return 0;
  // Its integral from 0: step^3 / 12 for each whole step, and the part since the last multiple.
  const auto integral = [&](double x) {
    const double quotient = x / step;
    const double steps = static_cast<double>(static_cast<int64_t>(quotient + (x < 0 ? -0.5 : 0.5)));
    const double rest = x - steps * step;
    return steps * step * step * step / 12 + rest * rest * rest / 3;
  };
  const double half = bin.width / 2;
  return (integral(bin.center + half) - integral(bin.center - half)) / bin.width;
}

// Sum of squared errors when `bins` are rounded to 255 steps from `low` to `high`, moved so that
// zero is a code.
static double SquaredError(const std::vector<WideBin>& bins, double low, double high) {
  const double step = (high - low) / kSteps;
  if (step <= 0) return std::numeric_limits<double>::infinity();
  low = step * std::nearbyint(low / step);
  high = low + step * kSteps;
  double error = 0;
  for (const WideBin& bin : bins) {
    const double excess = std::max({low - bin.center, bin.center - high, 0.0});
    error += bin.count * (excess > 0 ? excess * excess : RoundingError(bin, step));
  }
  return error;
}

ValueRange Sketch::LeastSquaredError() const {
  std::vector<WideBin> bins;
  for (const Bin& bin : FilledBins()) {
    bins.push_back({bin.center, static_cast<double>(bin.count), WidthAt(bin.center)});
  }
  const ValueRange whole = min_max();
  ValueRange best = whole;
  double least = SquaredError(bins, whole.min, whole.max);
  // Both ends shrink together, then each by itself, until nothing gains.
  for (bool gained = true; std::exchange(gained, false);) {
    for (const auto& [shrinks_low, shrinks_high] :
         {std::pair(true, true), {false, true}, {true, false}}) {
      const ValueRange from = best;
      for (int percent = 98; percent >= 20; percent -= 2) {
        const float factor = static_cast<float>(percent) / 100;
        const ValueRange tried = {from.min * (shrinks_low ? factor : 1),
                                  from.max * (shrinks_high ? factor : 1)};
        const double error = SquaredError(bins, tried.min, tried.max);
        if (error >= least * (1 - 1e-9)) continue;
        least = error;
        best = tried;
        gained = true;
      }
    }
  }
  return best;
}

// D(P || Q): P is what the range keeps, its clipped tail added to the outermost bin; Q is P spread
// evenly over each of the 255 steps.
static double Divergence(const std::vector<std::pair<double, double>>& bins, double low,
                         double high) {
  const double step = (high - low) / kSteps;
  std::vector<double> steps(kSteps + 1, 0), filled(kSteps + 1, 0);
  const auto step_of = [&](double center) {
    return static_cast<size_t>(std::clamp(std::round((center - low) / step), 0.0, 1.0 * kSteps));
  };
  double total = 0, clipped_low = 0, clipped_high = 0;
  for (const auto& [center, count] : bins) {
    total += count;
    if (center < low) clipped_low += count;
    if (center > high) clipped_high += count;
    if (center < low || center > high) continue;
    steps[step_of(center)] += count;
    filled[step_of(center)] += 1;
  }
  double divergence = 0, kept = total - clipped_low - clipped_high;
  if (kept <= 0) return std::numeric_limits<double>::infinity();
  for (const auto& [center, count] : bins) {
    if (center < low || center > high) continue;
    const size_t at = step_of(center);
    const double p = count / total, q = steps[at] / filled[at] / kept;
    divergence += p * std::log(p / q);
  }
  // The tail piles up at the ends, where Q has next to nothing.
  for (const double clipped : {clipped_low, clipped_high}) {
    if (clipped > 0) divergence += clipped / total * std::log(clipped * kept / total);
  }
  return divergence;
}

ValueRange Sketch::LeastDivergence() const {
  std::vector<std::pair<double, double>> bins;
  for (const Bin& bin : FilledBins()) bins.emplace_back(bin.center, static_cast<double>(bin.count));
  const ValueRange whole = min_max();
  ValueRange best = whole;
  double least = std::numeric_limits<double>::infinity();
  for (int percent = 100; percent >= 20; --percent) {
    const float share = static_cast<float>(percent) / 100;
    const ValueRange tried{whole.min * share, whole.max * share};
    if (tried.min == tried.max) continue;
    const double divergence = Divergence(bins, tried.min, tried.max);
    if (divergence >= least) continue;
    least = divergence;
    best = tried;
  }
  return best;
}

int64_t CalibrationCount(const PassContext& context) {
  if (context.calibration == nullptr) return 0;
  const int64_t all = context.calibration->sample_count();
  return context.calibration_samples > 0 ? std::min(all, context.calibration_samples) : all;
}

static Calibration Measure(Model model, const CalibrationRequest& request, PassContext& context,
                           KeptValues* kept) {
  Calibration result;
  result.samples = CalibrationCount(context);
  for (const std::string& value : request.values) result.sketches[value];
  for (const auto& [value, axis] : request.channels) result.channels[value].axis = axis;
  const Calibration empty = result;
  std::vector<std::string> watched = request.values;
  for (const auto& [value, axis] : request.channels) watched.push_back(value);
  if (kept != nullptr) {
    watched.insert(watched.end(), kept->values.begin(), kept->values.end());
    kept->seen.resize(kept->samples.size());
  }
  KeepPart(model.graph, watched);
  model.graph.outputs.clear();  // else they would be in memory at the end of a run
  const Executor executor(FuseFloat(std::move(model), watched),
                          {.fuse = false, .seed = context.seed});
  const auto place_of = [&](int64_t sample) -> int64_t {  // among the kept; -1: it is none
    if (kept == nullptr) return -1;
    const auto found = std::ranges::lower_bound(kept->samples, sample);
    if (found == kept->samples.end() || *found != sample) return -1;
    return found - kept->samples.begin();
  };
  SpillFile file(context.scratch);
  const auto measure = [&](int64_t sample) {
    if (context.cancelled()) throw Error(ErrorCode::kCancelled, "cancelled while calibrating");
    Calibration part = empty;
    const int64_t at = place_of(sample);
    const Observer observer = [&](const std::string& value, const Tensor& tensor) {
      if (at >= 0 && std::ranges::find(kept->values, value) != kept->values.end()) {
        kept->seen[static_cast<size_t>(at)].emplace(value,
                                                    KeptCopy(tensor, at < kSamplesInMemory, file));
      }
      if (tensor.dtype() != DType::kFloat32) return;
      const auto sketch = part.sketches.find(value);
      if (sketch != part.sketches.end())
        sketch->second.Add(tensor.data<float>(), request.with_bins);
      const auto channels = part.channels.find(value);
      if (channels != part.channels.end()) AddChannels(tensor, channels->second);
    };
    executor.Run(context.calibration->Sample(sample, executor.inputs()), &observer);
    return part;
  };
  // Joined in the order of the samples, whichever thread ran them: sums of floats keep their bits.
  int64_t next = 0, joined = 0;
  const auto take = [&](tbb::flow_control& control) {
    if (next == result.samples) control.stop();
    return next++;
  };
  const auto join = [&](const Calibration& part) {
    Join(part, result);
    context.progress(0.9 * static_cast<double>(++joined) / static_cast<double>(result.samples));
  };
  tbb::parallel_pipeline(
      static_cast<size_t>(tbb::this_task_arena::max_concurrency()),
      tbb::make_filter<void, int64_t>(tbb::filter_mode::serial_in_order, take) &
          tbb::make_filter<int64_t, Calibration>(tbb::filter_mode::parallel, measure) &
          tbb::make_filter<Calibration, void>(tbb::filter_mode::serial_in_order, join));
  return result;
}

static bool Covers(const Calibration& known, const CalibrationRequest& request) {
  const auto has_value = [&](const std::string& value) {
    const auto sketch = known.sketches.find(value);
    return sketch != known.sketches.end() && (!request.with_bins || sketch->second.has_bins());
  };
  const auto has_channels = [&](const auto& wanted) {
    const auto channels = known.channels.find(wanted.first);
    return channels != known.channels.end() && channels->second.axis == wanted.second;
  };
  return std::ranges::all_of(request.values, has_value) &&
         std::ranges::all_of(request.channels, has_channels);
}

// What is asked for and what was known already, so that neither is measured a third time.
static CalibrationRequest Joined(CalibrationRequest request, const Calibration& known) {
  for (const auto& [value, sketch] : known.sketches) {
    request.values.push_back(value);
    request.with_bins = request.with_bins || sketch.has_bins();
  }
  for (const auto& [value, channels] : known.channels) {
    request.channels.try_emplace(value, channels.axis);
  }
  return request;
}

static Calibration PartOf(const Calibration& known, const CalibrationRequest& request) {
  Calibration part;
  part.samples = known.samples;
  for (const std::string& value : request.values) part.sketches[value] = known.sketches.at(value);
  for (const auto& [value, axis] : request.channels)
    part.channels[value] = known.channels.at(value);
  return part;
}

static Calibration MeasureOnce(const Model& model, const CalibrationRequest& request,
                               PassContext& context, KeptValues* kept) {
  constexpr const char* kWhat = "calibration";
  if (context.shared == nullptr) return Measure(model, request, context, kept);
  const std::string key = KeyText({kWhat, model}, context);
  std::shared_ptr<const Calibration> known = context.shared->Find<Calibration>(key);
  if (known && Covers(*known, request)) {
    TellShared(kWhat, context.report);
    return PartOf(*known, request);
  }
  known = std::make_shared<const Calibration>(
      Measure(model, known ? Joined(request, *known) : request, context, kept));
  int64_t bytes = 0;
  for (const auto& [value, sketch] : known->sketches) bytes += sketch.bytes();
  for (const auto& [value, stats] : known->channels) bytes += 12 * std::ssize(stats.sums);
  context.shared->Put(key, known, bytes);
  return PartOf(*known, request);
}

Calibration Calibrate(const Model& model, const CalibrationRequest& request, PassContext& context,
                      KeptValues* kept) {
  if (CalibrationCount(context) == 0) {
    throw Error(ErrorCode::kInvalidArgument, "the calibration dataset has no samples",
                context.calibration == nullptr ? "calibration" : context.calibration->name());
  }
  Calibration result = MeasureOnce(model, request, context, kept);
  for (const std::string& value : request.values) {
    const Sketch& sketch = result.sketches.at(value);
    if (sketch.count() == 0) {
      throw Error(ErrorCode::kInvalidArgument, "no calibration sample reached it",
                  "value " + value);
    }
    CheckSketch(value, sketch);
    if (sketch.nan_count() + sketch.infinite_count() == 0) continue;
    context.report["not_finite"][value] = {{"nan", sketch.nan_count()},
                                           {"infinite", sketch.infinite_count()}};
  }
  return result;
}

}  // namespace pared
