#include "evaluator/scorer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "config/edit_distance.h"
#include "evaluator/metrics.h"
#include "evaluator/scores.h"

namespace pared {

void Fields(FieldVisitor& f, TaskSpec& t) {
  f.Choice("task", t.task,
           {"auto", "classification", "binary", "detection", "image", "ctc", "retrieval"},
           "What the labels mean; auto: classes, boxes or targets, as there are.");
  f.TextList("output", t.output, TextRule::kAny,
             "What is measured: the first of these that the model has; none: its first output.");
  f.Choice("pooling", t.pooling, {"none", "mean"},
           "classification, retrieval: the mean over the output's axes before the last one.");
  f.Integer(
      "gallery", t.gallery, {1, 10'000'000},
      "retrieval: so many samples, the first, are searched for the nearest to each other one.");
  f.Choice("head", t.detection.head, {"auto", "yolov5", "yolov8", "end"},
           "detection: the form of the output.");
  f.Number("iou_max", t.detection.iou_max, {0, 1},
           "detection: non-maximum suppression beyond this overlap.");
  f.Number("score_min", t.detection.score_min, {0, 1},
           "detection: least score for average precision.");
  f.Number("keep_score_min", t.detection.keep_score_min, {0, 1},
           "detection: least score for boxes kept.");
  f.Integer("boxes_max", t.detection.boxes_max, {1, 100'000},
            "detection: most boxes of a picture.");
  f.Number("threshold", t.threshold, {-1e30, 1e30},
           "binary: at and above it a sample is positive.");
  f.Number("peak", t.peak, {1e-30, 1e30}, "image: the largest value that a pixel can have.");
  f.Integer("ignored", t.ignored, {-1, 1'000'000},
            "ctc: a class left out of the text, such as the gap between words; -1: none.");
  f.Integer("blank", t.blank, {0, 1'000'000}, "ctc: the class that stands for nothing.");
}

namespace {

using Values = std::map<std::string, double>;

// What is kept of each sample until all are in.
template <class Facts>
class FactScorer : public Scorer {
 public:
  FactScorer(const Dataset& dataset, int64_t samples)
      : dataset_(dataset), facts_(static_cast<size_t>(samples)) {}

 protected:
  Facts& at(int64_t sample) { return facts_[static_cast<size_t>(sample)]; }

  const Dataset& dataset_;
  std::vector<Facts> facts_;
};

struct ClassFacts {
  int64_t best = -1, classes = 0;
  double kl = 0;
  bool is_in_five = false;
};

class ClassificationScorer final : public FactScorer<ClassFacts> {
 public:
  using FactScorer::FactScorer;

  void Add(int64_t sample, const Tensor& reference, const Tensor& output) override {
    const Pooling pooling = dataset_.task().pooling;
    const std::vector<float> scores = Pooled(output, pooling);
    ClassFacts& facts = at(sample);
    CheckLabel(sample, std::ssize(scores));
    facts.classes = std::ssize(scores);
    facts.best = ArgMax(scores);
    facts.kl = KlDivergence(Pooled(reference, pooling), scores);
    facts.is_in_five = IsInFive(scores, dataset_.label(sample));
  }

  Values Summarize() const override {
    std::vector<int64_t> labels, predictions;
    double in_five = 0, kl = 0, hits = 0;
    int64_t classes = 0;
    for (size_t i = 0; i < facts_.size(); ++i) {
      labels.push_back(dataset_.label(static_cast<int64_t>(i)));
      predictions.push_back(facts_[i].best);
      hits += labels.back() == predictions.back() ? 1 : 0;
      in_five += facts_[i].is_in_five ? 1 : 0;
      kl += facts_[i].kl;
      classes = std::max(classes, facts_[i].classes);
    }
    const auto count = static_cast<double>(facts_.size());
    const ClassScores scores = ScoreClasses(labels, predictions);
    Values values = {{"top1", hits / count},
                     {"mean_class_accuracy", scores.mean_class_accuracy},
                     {"f1_macro", scores.f1_macro}};
    AddInterval("top1", hits, count, values);
    values["mean_class_accuracy_low"] = scores.mean_class_interval.low;
    values["mean_class_accuracy_high"] = scores.mean_class_interval.high;
    if (classes > 5) {
      values["top5"] = in_five / count;
      AddInterval("top5", in_five, count, values);
    }
    if (std::isfinite(kl)) values["kl"] = kl / count;
    return values;
  }

 private:
  // One that counts from 1, or of another set of classes, would lower every figure in silence.
  void CheckLabel(int64_t sample, int64_t classes) const {
    const int64_t label = dataset_.label(sample);
    if (label >= 0 && label < classes) return;
    throw Error(ErrorCode::kInvalidArgument,
                "the label of sample " + std::to_string(sample) + " is " + std::to_string(label) +
                    ", the model's classes are 0 to " + std::to_string(classes - 1),
                "dataset " + dataset_.name());
  }

  // Fewer than five score higher, or equal and stand before it.
  static bool IsInFive(const std::vector<float>& scores, int64_t label) {
    if (label < 0 || label >= std::ssize(scores)) return false;
    const float own = scores[static_cast<size_t>(label)];
    int64_t before = 0;
    for (int64_t i = 0; i < std::ssize(scores); ++i) {
      const float other = scores[static_cast<size_t>(i)];
      before += other > own || (other == own && i < label) ? 1 : 0;
    }
    return before < 5 && !std::isnan(own);
  }
};

class BinaryScorer final : public FactScorer<double> {
 public:
  using FactScorer::FactScorer;

  void Add(int64_t sample, const Tensor&, const Tensor& output) override {
    const std::vector<float> values = ToFloats(output);
    if (values.size() != 1 && values.size() != 2) {
      throw Error(ErrorCode::kInvalidArgument,
                  "task binary wants a output of 1 or 2 elements, it has the shape " +
                      ShapeText(output.shape()),
                  "dataset " + dataset_.name());
    }
    at(sample) = values.back();
  }

  Values Summarize() const override {
    std::vector<int64_t> labels, predictions;
    double hits = 0;
    for (size_t i = 0; i < facts_.size(); ++i) {
      labels.push_back(dataset_.label(static_cast<int64_t>(i)));
      predictions.push_back(facts_[i] >= dataset_.task().threshold ? 1 : 0);
      hits += labels.back() == predictions.back() ? 1 : 0;
    }
    const auto count = static_cast<double>(facts_.size());
    Values values = {{"accuracy", hits / count}, {"f1", BinaryF1(labels, predictions)}};
    AddInterval("accuracy", hits, count, values);
    const double area = RocAuc(facts_, labels);
    if (std::isfinite(area)) values["roc_auc"] = area;
    return values;
  }
};

struct DetectionFacts {
  int64_t wanted = 0, found = 0, kept = 0;
  std::vector<Detection> detections;
};

class DetectionScorer final : public FactScorer<DetectionFacts> {
 public:
  using FactScorer::FactScorer;

  void Add(int64_t sample, const Tensor& reference, const Tensor& output) override {
    const DetectionOptions& options = dataset_.task().detection;
    DetectionFacts& facts = at(sample);
    const auto wanted = DecodeYolo(reference, options, options.keep_score_min, false);
    const auto found = DecodeYolo(output, options, options.keep_score_min, false);
    facts.wanted = std::ssize(wanted);
    facts.found = std::ssize(found);
    facts.kept = CountKept(wanted, found);
    if (!HasBoxes()) return;
    facts.detections = ToPicture(DecodeYolo(output, options, options.score_min, true),
                                 dataset_.images()->Placement(sample));
  }

  Values Summarize() const override {
    double wanted = 0, found = 0, kept = 0;
    std::vector<std::vector<Detection>> detections;
    std::vector<std::vector<LabelledBox>> truth;
    for (size_t i = 0; i < facts_.size(); ++i) {
      wanted += static_cast<double>(facts_[i].wanted);
      found += static_cast<double>(facts_[i].found);
      kept += static_cast<double>(facts_[i].kept);
      if (!HasBoxes()) continue;
      detections.push_back(facts_[i].detections);
      truth.push_back(dataset_.images()->boxes(static_cast<int64_t>(i)));
    }
    Values values = {{"boxes", found}};
    if (wanted > 0) values["boxes_kept"] = kept / wanted;
    if (found > 0) values["boxes_added"] = (found - kept) / found;
    if (wanted > 0) AddInterval("boxes_kept", kept, wanted, values);
    if (HasBoxes()) {
      const AveragePrecision precision = CocoAveragePrecision(detections, truth);
      if (std::isfinite(precision.map50)) {
        values["map50"] = precision.map50;
        values["map50_95"] = precision.map50_95;
      }
    }
    return values;
  }

 private:
  bool HasBoxes() const { return dataset_.images() != nullptr && dataset_.images()->has_boxes(); }
};

// The mean over samples of the peak signal to noise ratio.
class ImageScorer final : public FactScorer<double> {
 public:
  using FactScorer::FactScorer;

  void Add(int64_t sample, const Tensor&, const Tensor& output) override {
    const std::vector<float> target = ToFloats(dataset_.target(sample)), values = ToFloats(output);
    if (target.size() != values.size()) {
      throw Error(ErrorCode::kInvalidArgument,
                  "a target has " + std::to_string(target.size()) +
                      " elements, the output the shape " + ShapeText(output.shape()),
                  "dataset " + dataset_.name());
    }
    at(sample) = PsnrDb(target, values, dataset_.task().peak);
  }

  Values Summarize() const override {
    double sum = 0;
    for (const double psnr : facts_) sum += psnr;
    return {{"psnr_db", sum / static_cast<double>(facts_.size())}};
  }
};

struct CtcFacts {
  int64_t errors = 0, characters = 0;
};

class CtcScorer final : public FactScorer<CtcFacts> {
 public:
  using FactScorer::FactScorer;

  void Add(int64_t sample, const Tensor&, const Tensor& output) override {
    const Shape& shape = output.shape();
    if (shape.size() < 2 || shape.back() < 1) {
      throw Error(
          ErrorCode::kInvalidArgument,
          "task ctc wants a output [1, steps, classes], it has the shape " + ShapeText(shape),
          "dataset " + dataset_.name());
    }
    auto text = CtcGreedy(ToFloats(output), shape.back(), dataset_.task().blank);
    std::erase(text, dataset_.task().ignored);
    const std::vector<int64_t> wanted = dataset_.label_text(sample);
    at(sample) = {static_cast<int64_t>(EditDistance(text, wanted)), std::ssize(wanted)};
  }

  Values Summarize() const override {
    double errors = 0, characters = 0, whole = 0;
    for (const CtcFacts& facts : facts_) {
      errors += static_cast<double>(facts.errors);
      characters += static_cast<double>(facts.characters);
      whole += facts.errors == 0 ? 1 : 0;
    }
    const auto count = static_cast<double>(facts_.size());
    Values values = {{"lines_right", whole / count}};
    AddInterval("lines_right", whole, count, values);
    if (characters > 0) values["cer"] = errors / characters;
    return values;
  }
};

// Of each sample after the gallery, whether the nearest of the gallery has its class.
class RetrievalScorer final : public FactScorer<std::vector<float>> {
 public:
  using FactScorer::FactScorer;

  void Add(int64_t sample, const Tensor&, const Tensor& output) override {
    at(sample) = Pooled(output, dataset_.task().pooling);
  }

  Values Summarize() const override {
    const auto gallery = static_cast<size_t>(dataset_.task().gallery);
    if (facts_.size() <= gallery) {
      throw Error(ErrorCode::kInvalidArgument,
                  "task retrieval wants more samples than the " + std::to_string(gallery) +
                      " that are searched, there are " + std::to_string(facts_.size()),
                  "dataset " + dataset_.name());
    }
    for (const std::vector<float>& facts : facts_) {
      if (facts.size() == facts_.front().size()) continue;
      throw Error(ErrorCode::kInvalidArgument,
                  "task retrieval wants outputs of one length; \"pooling\": \"mean\" gives them",
                  "dataset " + dataset_.name());
    }
    const std::span<const std::vector<float>> all = facts_;
    const std::vector<int64_t> nearest =
        NearestByCosine(all.subspan(0, gallery), all.subspan(gallery));
    double hits = 0;
    for (size_t i = 0; i < nearest.size(); ++i) {
      const auto query = static_cast<int64_t>(gallery + i);
      hits += dataset_.label(nearest[i]) == dataset_.label(query) ? 1 : 0;
    }
    const auto count = static_cast<double>(nearest.size());
    Values values = {{"top1", hits / count}};
    AddInterval("top1", hits, count, values);
    return values;
  }
};

}  // namespace

std::vector<float> Pooled(const Tensor& output, Pooling pooling) {
  std::vector<float> values = ToFloats(output);
  if (pooling == Pooling::kNone || output.rank() < 2 || values.empty()) return values;
  const auto columns = static_cast<size_t>(output.shape().back());
  std::vector<double> sums(columns, 0.0);
  for (size_t i = 0; i < values.size(); ++i) sums[i % columns] += values[i];
  const double rows = static_cast<double>(values.size() / columns);
  std::vector<float> means;
  for (const double sum : sums) means.push_back(static_cast<float>(sum / rows));
  return means;
}

std::unique_ptr<Scorer> MakeScorer(const Dataset& dataset, int64_t samples) {
  switch (dataset.task().task) {
    case Task::kClassification:
      return std::make_unique<ClassificationScorer>(dataset, samples);
    case Task::kBinary:
      return std::make_unique<BinaryScorer>(dataset, samples);
    case Task::kDetection:
      return std::make_unique<DetectionScorer>(dataset, samples);
    case Task::kImage:
      return std::make_unique<ImageScorer>(dataset, samples);
    case Task::kCtc:
      return std::make_unique<CtcScorer>(dataset, samples);
    case Task::kRetrieval:
      return std::make_unique<RetrievalScorer>(dataset, samples);
    case Task::kAuto:
      break;
  }
  return nullptr;
}

}  // namespace pared
