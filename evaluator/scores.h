// Accuracy figures from predictions. tests/evaluator/scores_test.cc holds the answers of
// scikit-learn and pycocotools.

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace pared {

struct Interval {
  double low = 0, high = 1;
};

// Of a share of `hits` in `count` trials, at 95 %: E. B. Wilson, Probable inference, the law of
// succession, and statistical inference, 1927. Unlike the normal one it holds for few samples and
// shares near 0 and 1.
Interval WilsonInterval(double hits, double count);

// Sets `name`_low and `name`_high to that interval.
void AddInterval(const std::string& name, double hits, double count,
                 std::map<std::string, double>& values);

// Over a confusion of classes; all skip classes that no sample has and no prediction names.
struct ClassScores {
  double accuracy = 0;
  double mean_class_accuracy = 0;  // over the classes that samples have: the mean of recalls
  // At 95 %, from the Wilson intervals of the classes: G. Y. Zou and A. Donner, Construction of
  // confidence limits about effect measures: a general approach, 2008 (MOVER).
  Interval mean_class_interval;
  double f1_macro = 0;  // unweighted mean over classes; a class never predicted has 0
};
ClassScores ScoreClasses(std::span<const int64_t> labels, std::span<const int64_t> predictions);

// Of scores against labels 0 and 1: the chance that a positive sample scores higher than a negative
// one, a tie counting half. NaN where one class is missing.
double RocAuc(std::span<const double> scores, std::span<const int64_t> labels);

// F1 of the positive class; 0 where nothing is positive.
double BinaryF1(std::span<const int64_t> labels, std::span<const int64_t> predictions);

// Best path of a connectionist temporal classification: the largest of each row of `classes`
// scores, repeats joined, `blank` left out.
std::vector<int64_t> CtcGreedy(std::span<const float> scores, int64_t classes, int64_t blank);

// For each query the place of the vector of `gallery` with the greatest cosine, the first of
// equals; a vector of zeros has the cosine 0 to all. All have one length.
std::vector<int64_t> NearestByCosine(std::span<const std::vector<float>> gallery,
                                     std::span<const std::vector<float>> queries);

// Peak signal to noise ratio: 10 log10(peak^2 / mean squared error), at most 200. `values` are
// clamped to [0, peak], as they are before they are looked at. Both have one length.
double PsnrDb(std::span<const float> target, std::span<const float> values, double peak);

// Kullback-Leibler divergence in nats of `q` from `p`. What is no distribution (negative, or not
// summing to 1 within 1e-3) goes through a softmax first.
double KlDivergence(std::span<const float> p, std::span<const float> q);

}  // namespace pared
