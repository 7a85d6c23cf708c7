#include "evaluator/scores.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "base/check.h"

namespace pared {
namespace {

struct Counts {
  double samples = 0, predictions = 0, hits = 0;
};

std::map<int64_t, Counts> CountClasses(std::span<const int64_t> labels,
                                       std::span<const int64_t> predictions) {
  PARED_CHECK(labels.size() == predictions.size());
  std::map<int64_t, Counts> counts;
  for (size_t i = 0; i < labels.size(); ++i) {
    ++counts[labels[i]].samples;
    ++counts[predictions[i]].predictions;
    if (labels[i] == predictions[i]) ++counts[labels[i]].hits;
  }
  return counts;
}

double F1Of(const Counts& c) {
  const double all = c.samples + c.predictions;
  return all == 0 ? 0 : 2 * c.hits / all;
}

bool IsDistribution(std::span<const float> values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  return std::fabs(sum - 1) <= 1e-3 && std::ranges::all_of(values, [](float v) { return v >= 0; });
}

std::vector<double> Distribution(std::span<const float> values) {
  std::vector<double> p(values.begin(), values.end());
  if (IsDistribution(values)) return p;
  const double largest = *std::ranges::max_element(p);
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x - largest);
  for (double& x : p) x /= sum;
  return p;
}

}  // namespace

Interval WilsonInterval(double hits, double count) {
  if (count <= 0) return {};
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5 % quantile
  const double share = hits / count;
  const double center = share + z * z / (2 * count);
  const double spread = z * std::sqrt(share * (1 - share) / count + z * z / (4 * count * count));
  const double scale = 1 + z * z / count;
  return {std::max(0.0, (center - spread) / scale), std::min(1.0, (center + spread) / scale)};
}

void AddInterval(const std::string& name, double hits, double count,
                 std::map<std::string, double>& values) {
  const Interval interval = WilsonInterval(hits, count);
  values[name + "_low"] = interval.low;
  values[name + "_high"] = interval.high;
}

ClassScores ScoreClasses(std::span<const int64_t> labels, std::span<const int64_t> predictions) {
  const std::map<int64_t, Counts> counts = CountClasses(labels, predictions);
  ClassScores scores;
  double classes = 0, sampled = 0, hits = 0, below = 0, above = 0;
  for (const auto& [name, c] : counts) {
    hits += c.hits;
    scores.f1_macro += F1Of(c);
    ++classes;
    if (c.samples == 0) continue;
    const double recall = c.hits / c.samples;
    const Interval interval = WilsonInterval(c.hits, c.samples);
    below += (recall - interval.low) * (recall - interval.low);
    above += (interval.high - recall) * (interval.high - recall);
    scores.mean_class_accuracy += recall;
    ++sampled;
  }
  if (sampled == 0) return scores;
  scores.accuracy = hits / static_cast<double>(labels.size());
  scores.f1_macro /= classes;
  scores.mean_class_accuracy /= sampled;
  scores.mean_class_interval = {scores.mean_class_accuracy - std::sqrt(below) / sampled,
                                scores.mean_class_accuracy + std::sqrt(above) / sampled};
  return scores;
}

double RocAuc(std::span<const double> given, std::span<const int64_t> labels) {
  PARED_CHECK(labels.size() == given.size());
  // A score that is no number is the least sure of all; nor could one sort by it.
  std::vector<double> scores(given.begin(), given.end());
  std::ranges::replace_if(
      scores, [](double score) { return std::isnan(score); },
      -std::numeric_limits<double>::infinity());
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::sort(order, {}, [&](size_t i) { return scores[i]; });
  // Mann and Whitney's U: the ranks of the positive samples, equal scores sharing theirs.
  double positives = 0, rank_sum = 0;
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    double positives_here = 0;
    while (end < order.size() && scores[order[end]] == scores[order[begin]]) {
      positives_here += labels[order[end++]] == 1 ? 1 : 0;
    }
    const double rank = (static_cast<double>(begin) + 1 + static_cast<double>(end)) / 2;
    rank_sum += rank * positives_here;
    positives += positives_here;
    begin = end;
  }
  const double negatives = static_cast<double>(scores.size()) - positives;
  if (positives == 0 || negatives == 0) return std::numeric_limits<double>::quiet_NaN();
  return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives);
}

double BinaryF1(std::span<const int64_t> labels, std::span<const int64_t> predictions) {
  const std::map<int64_t, Counts> counts = CountClasses(labels, predictions);
  const auto positive = counts.find(1);
  return positive == counts.end() ? 0 : F1Of(positive->second);
}

std::vector<int64_t> CtcGreedy(std::span<const float> scores, int64_t classes, int64_t blank) {
  std::vector<int64_t> text;
  int64_t previous = blank;
  for (size_t begin = 0; begin + static_cast<size_t>(classes) <= scores.size();
       begin += static_cast<size_t>(classes)) {
    const auto row = scores.subspan(begin, static_cast<size_t>(classes));
    const int64_t best = std::ranges::max_element(row) - row.begin();
    if (best != blank && best != previous) text.push_back(best);
    previous = best;
  }
  return text;
}

std::vector<int64_t> NearestByCosine(std::span<const std::vector<float>> gallery,
                                     std::span<const std::vector<float>> queries) {
  const auto dot = [](const std::vector<float>& a, const std::vector<float>& b) {
    PARED_CHECK(a.size() == b.size());
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += double{a[i]} * double{b[i]};
    return sum;
  };
  std::vector<double> lengths;
  for (const std::vector<float>& vector : gallery)
    lengths.push_back(std::sqrt(dot(vector, vector)));
  std::vector<int64_t> nearest(queries.size(), 0);
  tbb::parallel_for(size_t{0}, queries.size(), [&](size_t q) {
    double best = -std::numeric_limits<double>::infinity();
    for (size_t g = 0; g < gallery.size(); ++g) {
      // The query's own length divides all alike, and so changes no order.
      const double cosine = lengths[g] > 0 ? dot(queries[q], gallery[g]) / lengths[g] : 0;
      if (!(cosine > best)) continue;
      best = cosine;
      nearest[q] = static_cast<int64_t>(g);
    }
  });
  return nearest;
}

double PsnrDb(std::span<const float> target, std::span<const float> values, double peak) {
  PARED_CHECK(target.size() == values.size());
  double squares = 0;
  for (size_t i = 0; i < target.size(); ++i) {
    const double difference = std::clamp<double>(values[i], 0, peak) - target[i];
    squares += difference * difference;
  }
  const double mean = std::max(squares / static_cast<double>(target.size()), 1e-20 * peak * peak);
  return 10 * std::log10(peak * peak / mean);
}

double KlDivergence(std::span<const float> p, std::span<const float> q) {
  if (p.size() != q.size() || p.empty()) return std::numeric_limits<double>::infinity();
  const std::vector<double> a = Distribution(p), b = Distribution(q);
  // A probability that rounding made 0 is taken as the least float.
  constexpr double kLeast = std::numeric_limits<float>::min();
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] > 0) sum += a[i] * std::log(a[i] / std::max(b[i], kLeast));
  }
  return std::max(0.0, sum);
}

}  // namespace pared
