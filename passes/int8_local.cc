#include "passes/int8_local.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "passes/int8_cone.h"
#include "passes/int8_params.h"
#include "passes/layer_statistics.h"
#include "passes/matrix_product.h"
#include "passes/shared_statistics.h"

namespace pared {
namespace {

constexpr int64_t kSamplesMax = 64;
constexpr int64_t kMacsMax = int64_t{1} << 36;  // of all samples
constexpr int64_t kColumns = 768;               // of all samples together
constexpr int64_t kGroupsMax = 16;              // of a grouped convolution
constexpr int64_t kConeSamples = 8;
constexpr int kCuts = 16;         // ranges tried: each a quarter of an octave less
constexpr double kHopeless = 2;   // times the least error: narrower ranges are not tried
constexpr double kGainMin = 0.9;  // smoothing must lower the error by so much
constexpr float kCodeMax = 127;

using Matrix = std::vector<float>;

// One product (one group of a convolution) at the sampled positions.
struct ReadProduct {
  int64_t k = 0, rows = 0, count = 0;
  Matrix x, w, y;             // [count][k], [rows][k], [count][rows]
  std::vector<double> trust;  // of each position
};

double ErrorOf(const ReadProduct& p, const Matrix& x, const Matrix& w) {
  const Matrix y = Multiply({p.count, p.rows, p.k, false, true}, x, w);
  double error = 0;
  size_t i = 0;
  for (const double trust : p.trust) {
    for (int64_t row = 0; row < p.rows; ++row, ++i) {
      const double difference = static_cast<double>(y[i]) - p.y[i];
      error += trust * difference * difference;
    }
  }
  return error;
}

Matrix Rounded(Matrix x, ValueRange range) {
  RoundToCodes(ParamsOf(range), x);
  return x;
}

// Symmetric, by output channel.
Matrix RoundedWeight(Matrix w, int64_t k) {
  for (auto row = w.begin(); row != w.end(); row += k) {
    float largest = 0;
    for (auto at = row; at != row + k; ++at) largest = std::max(largest, std::fabs(*at));
    if (largest == 0) continue;
    const float scale = largest / kCodeMax;
    for (auto at = row; at != row + k; ++at) *at = std::nearbyint(*at / scale) * scale;
  }
  return w;
}

// Calls change(element, value of its column) for all elements of a matrix.
template <class Change>
void ForEachColumn(Matrix& matrix, const std::vector<float>& values, const Change& change) {
  for (size_t row = 0; row < matrix.size(); row += values.size()) {
    for (size_t i = 0; i < values.size(); ++i) change(matrix[row + i], values[i]);
  }
}

ValueRange RangeOfElements(const Matrix& x) {
  ValueRange range;
  for (const float element : x) {
    range = {std::min(range.min, element), std::max(range.max, element)};
  }
  return range;
}

// Every `count`-th sample, from `first` on.
struct Fold {
  int64_t count = 1, first = 0;
};

// The products that read one value.
class Products {
 public:
  Products(const LayerStream& stream, const std::vector<const WeightSite*>& sites, Fold fold = {}) {
    for (const WeightSite* site : sites) Add(stream, *site, fold);
  }

  bool empty() const { return products_.empty(); }

  ValueRange BestRange(ValueRange seen) const {
    const float largest = std::max(-seen.min, seen.max);
    ValueRange best = seen;
    double least = -1;
    for (int i = 0; i < kCuts; ++i) {
      const float cut = largest * std::exp2(static_cast<float>(-i) / 4);
      const ValueRange range = {std::max(seen.min, -cut), std::min(seen.max, cut)};
      double error = 0;
      for (const ReadProduct& p : products_) error += ErrorOf(p, Rounded(p.x, range), p.w);
      if (least < 0 || error < least) {
        least = error;
        best = range;
      } else if (error > kHopeless * least) {
        break;
      }
    }
    return best;
  }

  // By the codes of `known`, or where there is none, of all that these products read.
  double ErrorOfSmoothing(const std::vector<float>& factors,
                          std::optional<ValueRange> known = std::nullopt) const {
    double error = 0;
    for (const ReadProduct& p : products_) {
      Matrix x = p.x, w = p.w;
      ForEachColumn(x, factors, [](float& element, float factor) { element /= factor; });
      ForEachColumn(w, factors, [](float& element, float factor) { element *= factor; });
      const ValueRange range = known.value_or(RangeOfElements(x));
      error += ErrorOf(p, Rounded(std::move(x), range), RoundedWeight(std::move(w), p.k));
    }
    return error;
  }

  // Of each input channel, over all products.
  std::vector<float> WeightMagnitudes() const {
    std::vector<float> largest(static_cast<size_t>(products_[0].k), 0.0f);
    for (const ReadProduct& p : products_) {
      for (size_t i = 0; i < p.w.size(); ++i) {
        float& channel = largest[i % largest.size()];
        channel = std::max(channel, std::fabs(p.w[i]));
      }
    }
    return largest;
  }

 private:
  void Add(const LayerStream& stream, const WeightSite& site, Fold fold) {
    const int64_t groups = std::min(site.layout.groups, kGroupsMax);
    for (int64_t i = 0; i < groups; ++i) {
      const int64_t group = i * site.layout.groups / groups;
      std::optional<LayerColumns> columns = TakeColumns(
          stream, {&site, WholeGroup(site, group), kColumns, fold.count, fold.first, {}, true});
      if (!columns || columns->count == 0) continue;
      ReadProduct p;
      p.k = columns->k;
      p.rows = site.layout.rows;
      p.count = columns->count;
      p.x = std::move(columns->original);
      p.w = PartWeight(site, WholeGroup(site, group));
      p.y = Multiply({p.count, p.rows, p.k, false, true}, p.x, p.w);
      p.trust = PositionWeights(site, p.y, p.rows);
      products_.push_back(std::move(p));
    }
  }

  std::vector<ReadProduct> products_;
};

using Sites = std::vector<const WeightSite*>;

struct Reading {
  std::string value;
  Sites sites;  // that multiply it
};
using SitesOf = std::function<std::optional<Sites>(const std::string& value)>;
using Visit = std::function<void(const LayerStream& stream, const Reading& reading)>;

// Calls `visit` right before the first reader of each value for which `sites_of` has an answer.
void VisitValues(const Int8ChoiceContext& context, const SitesOf& sites_of,
                 PassContext& pass_context, const Visit& visit) {
  const Model& model = *context.model;
  LayerStream stream(model, pass_context, {kSamplesMax, kMacsMax});
  std::unordered_set<std::string> visited;
  for (size_t i = 0; i < model.graph.nodes.size(); ++i) {
    for (const std::string& value : model.graph.nodes[i].inputs) {
      if (value.empty() || !visited.insert(value).second) continue;
      const std::optional<Sites> sites = sites_of(value);
      if (!sites) continue;
      stream.AdvanceTo(i, model);
      visit(stream, {value, *sites});
    }
  }
}

std::vector<const Tensor*> SamplesOf(const LayerStream& stream, const std::string& value) {
  std::vector<const Tensor*> samples;
  const int64_t step = std::max<int64_t>(1, stream.sample_count() / kConeSamples);
  for (int64_t i = 0; i < stream.sample_count(); i += step) {
    const Tensor* sample = stream.Original(i, value);
    if (sample != nullptr && sample->dtype() == DType::kFloat32) samples.push_back(sample);
  }
  return samples;
}

// Factors beyond these bounds follow from a channel that next to nothing is known of.
constexpr float kFactorMax = 1e4f;

std::vector<float> PowerFactors(const std::vector<float>& inputs, const std::vector<float>& weights,
                                float strength) {
  std::vector<float> factors;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const bool is_known = inputs[i] > 0 && weights[i] > 0;
    const float factor =
        is_known ? std::pow(inputs[i], strength) / std::pow(weights[i], 1 - strength) : 1;
    factors.push_back(std::clamp(factor, 1 / kFactorMax, kFactorMax));
  }
  return factors;
}

std::vector<float> CutFactors(const std::vector<float>& inputs, float most) {
  std::vector<float> factors;
  for (const float input : inputs) factors.push_back(std::clamp(input / most, 1.0f, kFactorMax));
  return factors;
}

struct SmoothingCandidate {
  enum class Kind { kPower, kCut } kind = Kind::kPower;
  float strength = 0;  // of a cut: it is the largest input over this; 0: the middle one
};

float MiddleOf(std::vector<float> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

std::vector<SmoothingCandidate> SmoothingCandidates(const std::vector<float>& inputs) {
  using Kind = SmoothingCandidate::Kind;
  std::vector<SmoothingCandidate> candidates;
  for (const float strength : {0.4f, 0.5f, 0.6f, 0.75f, 0.9f}) {
    candidates.push_back({Kind::kPower, strength});
  }
  const float largest = std::ranges::max(inputs), middle = MiddleOf(inputs);
  for (const float part : {1.5f, 2.0f, 3.0f, 4.0f, 6.0f, 8.0f, 12.0f, 16.0f}) {
    if (largest / part > middle) candidates.push_back({Kind::kCut, part});
  }
  if (middle > 0) candidates.push_back({Kind::kCut, 0});
  return candidates;
}

std::vector<float> FactorsOf(const SmoothingCandidate& candidate, const std::vector<float>& inputs,
                             const std::vector<float>& weights) {
  if (candidate.kind == SmoothingCandidate::Kind::kPower) {
    return PowerFactors(inputs, weights, candidate.strength);
  }
  const float cut =
      candidate.strength == 0 ? MiddleOf(inputs) : std::ranges::max(inputs) / candidate.strength;
  return cut > 0 ? CutFactors(inputs, cut) : std::vector<float>(inputs.size(), 1.0f);
}

// The ends of each channel of a value, its last axis, in the samples of a fold.
class ChannelEnds {
 public:
  ChannelEnds(const LayerStream& stream, const std::string& value, size_t channels, Fold fold)
      : ends_(channels) {
    for (int64_t i = fold.first; i < stream.sample_count(); i += fold.count) {
      const Tensor* sample = stream.Original(i, value);
      if (sample == nullptr || sample->dtype() != DType::kFloat32) continue;
      const std::span<const float> elements = sample->data<float>();
      for (size_t at = 0; at < elements.size(); ++at) {
        ValueRange& range = ends_[at % channels];
        range = {std::min(range.min, elements[at]), std::max(range.max, elements[at])};
      }
      stream.CountRead(std::ssize(sample->bytes()));
    }
  }

  std::vector<float> Magnitudes() const {
    std::vector<float> magnitudes;
    for (const ValueRange& range : ends_) magnitudes.push_back(std::max(-range.min, range.max));
    return magnitudes;
  }

  // Of all channels, each over its factor.
  ValueRange RangeOver(const std::vector<float>& factors) const {
    ValueRange all;
    for (size_t i = 0; i < ends_.size(); ++i) {
      all = {std::min(all.min, ends_[i].min / factors[i]),
             std::max(all.max, ends_[i].max / factors[i])};
    }
    return all;
  }

 private:
  std::vector<ValueRange> ends_;
};

// Whether factors and range of one half of the samples lower the error of the other. On few rows
// the largest value of every channel is one that others pass: what divides by it makes all of them
// saturate, which the samples that it was taken from do not show. Of one sample nothing is known.
bool HoldsOnOtherSamples(const LayerStream& stream, const Reading& reading,
                         const SmoothingCandidate& candidate, bool has_range) {
  double plain_error = 0, smooth_error = 0;
  for (const int64_t half : {0, 1}) {
    const Products held(stream, reading.sites, {2, half});
    if (held.empty()) return true;
    const std::vector<float> weights = held.WeightMagnitudes(), ones(weights.size(), 1.0f);
    const ChannelEnds ends(stream, reading.value, weights.size(), {2, 1 - half});
    const std::vector<float> factors = FactorsOf(candidate, ends.Magnitudes(), weights);
    const auto range = [&](const std::vector<float>& over) {
      return has_range ? std::optional(ends.RangeOver(over)) : std::nullopt;
    };
    plain_error += held.ErrorOfSmoothing(ones, range(ones));
    smooth_error += held.ErrorOfSmoothing(factors, range(factors));
  }
  return smooth_error < plain_error;
}

ValueRanges MeasureRanges(const Int8ChoiceContext& context, const Int8Choice& choice,
                          const Calibration& calibration, PassContext& pass_context) {
  ValueRanges ranges;
  const auto sites_of = [&](const std::string& value) -> std::optional<Sites> {
    Sites sites;
    if (!calibration.sketches.contains(value)) return std::nullopt;
    for (const Node* reader : context.index->consumers(value)) {
      const auto site = choice.weights.find(reader);
      if (site == choice.weights.end() || reader->inputs[0] != value) continue;
      if (WhyNoStatistics(*site->second).empty()) sites.push_back(site->second);
    }
    return sites;
  };
  const auto visit = [&](const LayerStream& stream, const Reading& reading) {
    const ValueRange seen = calibration.sketches.at(reading.value).min_max();
    if (!reading.sites.empty()) {
      const Products products(stream, reading.sites);
      if (!products.empty()) ranges[reading.value] = products.BestRange(seen);
    } else if (const std::optional<Cone> cone = Cone::Find(context, choice, reading.value)) {
      const std::vector<const Tensor*> samples = SamplesOf(stream, reading.value);
      if (samples.empty()) return;
      ranges[reading.value] = cone->BestRange(samples, seen, pass_context.threads);
      for (const Tensor* sample : samples) stream.CountRead(std::ssize(sample->bytes()));
    }
  };
  VisitValues(context, sites_of, pass_context, visit);
  return ranges;
}

SmoothingFactors MeasureSmoothing(const Int8ChoiceContext& context, const Int8Choice& choice,
                                  const Calibration& calibration, PassContext& pass_context) {
  SmoothingFactors chosen;
  const auto sites_of = [&](const std::string& value) -> std::optional<Sites> {
    const auto channels = calibration.channels.find(value);
    if (channels == calibration.channels.end()) return std::nullopt;
    const Sites sites = SmoothableProducts(context, choice, value);
    const int64_t k = std::ssize(channels->second.magnitudes);
    const bool fit = std::ranges::all_of(sites, [&](const WeightSite* site) {
      return site->layout.k == k && channels->second.axis == SummedAxis(*site->node);
    });
    return fit && !sites.empty() ? std::optional(sites) : std::nullopt;
  };
  const auto visit = [&](const LayerStream& stream, const Reading& reading) {
    const Products products(stream, reading.sites);
    if (products.empty()) return;
    const std::vector<float>& inputs = calibration.channels.at(reading.value).magnitudes;
    const std::vector<float> weights = products.WeightMagnitudes();
    const std::vector<SmoothingCandidate> candidates = SmoothingCandidates(inputs);
    std::vector<double> errors(candidates.size());
    tbb::parallel_for(size_t{0}, candidates.size(), [&](size_t i) {
      errors[i] = products.ErrorOfSmoothing(FactorsOf(candidates[i], inputs, weights));
    });
    double least = kGainMin * products.ErrorOfSmoothing(std::vector<float>(inputs.size(), 1.0f));
    std::optional<SmoothingCandidate> best;
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (errors[i] >= least) continue;
      least = errors[i];
      best = candidates[i];
    }
    const bool has_range = calibration.sketches.contains(reading.value);
    if (!best || !HoldsOnOtherSamples(stream, reading, *best, has_range)) return;
    chosen[reading.value] = FactorsOf(*best, inputs, weights);
  };
  VisitValues(context, sites_of, pass_context, visit);
  return chosen;
}

}  // namespace

ValueRanges ChooseRanges(const Int8ChoiceContext& context, const Int8Choice& choice,
                         const Calibration& calibration, PassContext& pass_context) {
  return *Shared(
      {"ranges of products", *context.model, ExcludedPlaces(context)}, pass_context,
      [&] { return MeasureRanges(context, choice, calibration, pass_context); },
      [](const ValueRanges& ranges) {
        return static_cast<int64_t>(ranges.size() * sizeof(ValueRanges::value_type));
      });
}

SmoothingFactors ChooseSmoothing(const Int8ChoiceContext& context, const Int8Choice& choice,
                                 const Calibration& calibration, PassContext& pass_context) {
  return *Shared(
      {"smoothing",
       *context.model,
       {{"excluded", ExcludedPlaces(context)}, {"has_ranges", !calibration.sketches.empty()}}},
      pass_context, [&] { return MeasureSmoothing(context, choice, calibration, pass_context); },
      [](const SmoothingFactors& smoothing) {
        size_t bytes = 0;
        for (const auto& [value, factors] : smoothing) bytes += 4 * factors.size();
        return static_cast<int64_t>(bytes);
      });
}

}  // namespace pared
