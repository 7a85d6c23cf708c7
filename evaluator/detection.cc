#include "evaluator/detection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "evaluator/metrics.h"

namespace pared {
namespace {

double Overlap(double a_low, double a_high, double b_low, double b_high) {
  return std::max(0.0, std::min(a_high, b_high) - std::max(a_low, b_low));
}

double Intersection(const Detection& a, const Detection& b) {
  return Overlap(a.left, a.right, b.left, b.right) * Overlap(a.top, a.bottom, b.top, b.bottom);
}

double Area(const Detection& d) {
  return std::max(0.0, d.right - d.left) * std::max(0.0, d.bottom - d.top);
}

// How a head lies in memory.
struct HeadLayout {
  YoloHead head;
  int64_t boxes, fields, box_step, field_step;
};

HeadLayout LayoutOf(const Tensor& output, YoloHead head) {
  const Shape& shape = output.shape();
  const bool fits = shape.size() == 3 && shape[0] == 1 && output.count() > 0;
  if (head == YoloHead::kAuto && fits) head = shape[2] < shape[1] ? YoloHead::kV5 : YoloHead::kV8;
  const bool is_planar = head == YoloHead::kV8;
  const HeadLayout layout =
      fits ? HeadLayout{head, shape[is_planar ? 2 : 1], shape[is_planar ? 1 : 2],
                        is_planar ? 1 : shape[2], is_planar ? shape[2] : 1}
           : HeadLayout{};
  const int64_t fields_min = head == YoloHead::kV8 ? 5 : 6;
  if (fits && layout.fields >= fields_min && (head != YoloHead::kEnd || layout.fields == 6))
    return layout;
  throw Error(ErrorCode::kInvalidArgument,
              "the first output has the shape " + ShapeText(shape) +
                  "; a YOLO head has [1, 4 + classes, boxes] (yolov8), [1, boxes, 5 + classes] "
                  "(yolov5) or [1, boxes, 6] "
                  "(end)",
              "detection");
}

void AppendBox(const HeadLayout& layout, const float* box, double score_min, bool all_classes,
               std::vector<Detection>& found) {
  const auto field = [&](int64_t i) { return static_cast<double>(box[i * layout.field_step]); };
  if (layout.head == YoloHead::kEnd) {
    if (field(4) > score_min) {
      found.push_back(
          {field(0), field(1), field(2), field(3), field(4), static_cast<int64_t>(field(5))});
    }
    return;
  }
  const bool is_v5 = layout.head == YoloHead::kV5;
  const int64_t first = is_v5 ? 5 : 4;
  const double objectness = is_v5 ? field(4) : 1;
  Detection detection = {field(0) - field(2) / 2,
                         field(1) - field(3) / 2,
                         field(0) + field(2) / 2,
                         field(1) + field(3) / 2,
                         0,
                         0};
  Detection best = detection;
  for (int64_t i = first; i < layout.fields; ++i) {
    const double score = objectness * field(i);
    if (!(score > score_min)) continue;  // NaN too
    detection.score = score;
    detection.category = i - first;
    if (all_classes) found.push_back(detection);
    if (score > best.score) best = detection;
  }
  if (!all_classes && best.score > 0) found.push_back(best);
}

// Best first; of equals the one found first.
void SortByScore(std::vector<Detection>& detections) {
  std::ranges::stable_sort(detections, std::greater<>(), &Detection::score);
}

std::vector<Detection> Suppress(std::vector<Detection> detections,
                                const DetectionOptions& options) {
  // Beyond so many candidates those left have hardly any score; Ultralytics stops there too.
  constexpr size_t kCandidatesMax = 30'000;
  SortByScore(detections);
  if (detections.size() > kCandidatesMax) detections.resize(kCandidatesMax);
  std::vector<Detection> kept;
  for (const Detection& candidate : detections) {
    if (std::ssize(kept) >= options.boxes_max) break;
    const bool is_covered = std::ranges::any_of(kept, [&](const Detection& better) {
      return better.category == candidate.category && Iou(better, candidate) > options.iou_max;
    });
    if (!is_covered) kept.push_back(candidate);
  }
  return kept;
}

constexpr size_t kThresholds = 10;
constexpr size_t kDetectionsMax = 100;

// As COCO's evaluation rounds them; a recall of 57 of 100 lies below its level of 57 * 0.01.
double ThresholdOf(size_t i) { return static_cast<double>(i) * ((0.95 - 0.5) / 9) + 0.5; }
double RecallOf(int level) { return level == 100 ? 1 : level * 0.01; }

// A detection and what it met at each threshold.
struct Judged {
  double score;
  std::array<bool, kThresholds> is_hit, is_ignored;
};

// Of one category over all pictures.
struct CategoryResult {
  std::vector<Judged> judged;
  double truths = 0;  // without crowds
};

double CocoIou(const Detection& detection, const LabelledBox& box) {
  const Detection truth = {box.left, box.top, box.left + box.width, box.top + box.height, 0, 0};
  const double common = Intersection(detection, truth);
  // Within a crowd it counts how much of the detection lies there.
  const double whole = box.is_crowd ? Area(detection) : Area(detection) + Area(truth) - common;
  return whole > 0 ? common / whole : 0;
}

// Matches as COCO does: the best detection first takes the free truth that it overlaps most; a
// crowd may be taken again, and only where no other truth is met.
void JudgePicture(const std::vector<Detection>& detections, const std::vector<LabelledBox>& truths,
                  size_t threshold, std::vector<Judged>& judged) {
  std::vector<bool> is_taken(truths.size(), false);
  for (size_t d = 0; d < detections.size(); ++d) {
    double best = std::min(ThresholdOf(threshold), 1 - 1e-10);
    std::optional<size_t> match;
    for (size_t t = 0; t < truths.size(); ++t) {
      if (is_taken[t] && !truths[t].is_crowd) continue;
      if (match && !truths[*match].is_crowd && truths[t].is_crowd) break;  // crowds stand last
      const double iou = CocoIou(detections[d], truths[t]);
      if (iou < best) continue;
      best = iou;
      match = t;
    }
    judged[d].is_hit[threshold] = match.has_value();
    judged[d].is_ignored[threshold] = match && truths[*match].is_crowd;
    if (match) is_taken[*match] = true;
  }
}

void AddPicture(std::vector<Detection> detections, std::vector<LabelledBox> truths,
                CategoryResult& result) {
  SortByScore(detections);
  if (detections.size() > kDetectionsMax) detections.resize(kDetectionsMax);
  std::ranges::stable_sort(truths, {}, &LabelledBox::is_crowd);
  std::vector<Judged> judged;
  for (const Detection& detection : detections) judged.push_back({detection.score, {}, {}});
  for (size_t i = 0; i < kThresholds; ++i) JudgePicture(detections, truths, i, judged);
  result.judged.insert(result.judged.end(), judged.begin(), judged.end());
  result.truths += static_cast<double>(std::ranges::count(truths, false, &LabelledBox::is_crowd));
}

// The mean of the best precision at or beyond each of 101 recalls. `judged` is sorted by score.
double PrecisionAt(const CategoryResult& result, size_t threshold) {
  std::vector<double> recalls, precisions;
  double hits = 0, all = 0;
  for (const Judged& judged : result.judged) {
    if (judged.is_ignored[threshold]) continue;
    ++all;
    if (judged.is_hit[threshold]) ++hits;
    recalls.push_back(hits / result.truths);
    precisions.push_back(hits / all);
  }
  for (size_t i = precisions.size(); i-- > 1;)
    precisions[i - 1] = std::max(precisions[i - 1], precisions[i]);
  double sum = 0;
  for (int level = 0; level <= 100; ++level) {
    const auto place = std::ranges::lower_bound(recalls, RecallOf(level)) - recalls.begin();
    if (place < std::ssize(precisions)) sum += precisions[static_cast<size_t>(place)];
  }
  return sum / 101;
}

}  // namespace

double Iou(const Detection& a, const Detection& b) {
  const double common = Intersection(a, b);
  const double whole = Area(a) + Area(b) - common;
  return whole > 0 ? common / whole : 0;
}

std::vector<Detection> DecodeYolo(const Tensor& output, const DetectionOptions& options,
                                  double score_min, bool all_classes) {
  const HeadLayout layout = LayoutOf(output, options.head);
  const std::vector<float> values = ToFloats(output);
  std::vector<Detection> found;
  for (int64_t box = 0; box < layout.boxes; ++box) {
    AppendBox(layout, values.data() + box * layout.box_step, score_min, all_classes, found);
  }
  if (layout.head != YoloHead::kEnd) return Suppress(std::move(found), options);
  SortByScore(found);
  return found;
}

int64_t CountKept(std::span<const Detection> reference, std::span<const Detection> detections) {
  std::vector<bool> is_taken(detections.size(), false);
  int64_t kept = 0;
  for (const Detection& wanted : reference) {
    double best = 0.5;
    std::optional<size_t> match;
    for (size_t i = 0; i < detections.size(); ++i) {
      if (is_taken[i] || detections[i].category != wanted.category) continue;
      const double iou = Iou(wanted, detections[i]);
      if (iou < best || (match && iou == best)) continue;
      best = iou;
      match = i;
    }
    if (!match) continue;
    is_taken[*match] = true;
    ++kept;
  }
  return kept;
}

std::vector<Detection> ToPicture(std::vector<Detection> detections,
                                 const ImagePlacement& placement) {
  for (Detection& d : detections) {
    d.left = d.left * placement.scale_x + placement.left;
    d.right = d.right * placement.scale_x + placement.left;
    d.top = d.top * placement.scale_y + placement.top;
    d.bottom = d.bottom * placement.scale_y + placement.top;
  }
  return detections;
}

AveragePrecision CocoAveragePrecision(const std::vector<std::vector<Detection>>& detections,
                                      const std::vector<std::vector<LabelledBox>>& truth) {
  PARED_CHECK(detections.size() == truth.size());
  std::map<int64_t, CategoryResult> results;
  for (size_t picture = 0; picture < truth.size(); ++picture) {
    std::map<int64_t, std::pair<std::vector<Detection>, std::vector<LabelledBox>>> parts;
    for (const Detection& detection : detections[picture])
      parts[detection.category].first.push_back(detection);
    for (const LabelledBox& box : truth[picture]) parts[box.category].second.push_back(box);
    for (auto& [category, part] : parts) {
      AddPicture(std::move(part.first), std::move(part.second), results[category]);
    }
  }
  AveragePrecision mean;
  double categories = 0;
  for (auto& [category, result] : results) {
    if (result.truths == 0) continue;
    ++categories;
    std::ranges::stable_sort(result.judged, std::greater<>(), &Judged::score);
    for (size_t i = 0; i < kThresholds; ++i) {
      const double precision = PrecisionAt(result, i);
      mean.map50_95 += precision / kThresholds;
      if (i == 0) mean.map50 += precision;
    }
  }
  if (categories == 0) return {std::nan(""), std::nan("")};
  return {mean.map50 / categories, mean.map50_95 / categories};
}

}  // namespace pared
