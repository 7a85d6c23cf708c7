// Object detection: boxes out of YOLO heads, COCO's mean average precision, and the boxes kept.

#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "evaluator/image_set.h"
#include "model/tensor.h"

namespace pared {

// In pixels of the model's input, or of the picture after ToPicture.
struct Detection {
  double left = 0, top = 0, right = 0, bottom = 0;
  double score = 0;
  int64_t category = 0;
};

enum class YoloHead {
  kAuto,  // kV5 where the output's last axis is shorter than its second, else kV8
  kV5,    // [1, boxes, 5 + classes]: centre x, y, width, height, objectness, class scores (v5, v7)
  kV8,    // [1, 4 + classes, boxes]: centre x, y, width, height, class scores (v8, v9, v11)
  kEnd,  // [1, boxes, 6]: left, top, right, bottom, score, class: suppressed already (v10, exported
         // NMS)
};

struct DetectionOptions {
  YoloHead head = YoloHead::kAuto;
  double score_min = 0.001;      // for average precision, as COCO's figures are made
  double keep_score_min = 0.25;  // for boxes kept: those that a user sees
  double iou_max = 0.7;  // non-maximum suppression: a box that overlaps a better one by more goes
  int64_t boxes_max = 300;  // of a picture
};

// Intersection over union.
double Iou(const Detection& a, const Detection& b);

// The boxes above `score_min` that suppression leaves, of each class by itself, the best first.
// With `all_classes` a box stands for each class above it, as average precision wants, else for its
// best one. Throws kInvalidArgument where the shape is no such head's.
std::vector<Detection> DecodeYolo(const Tensor& output, const DetectionOptions& options,
                                  double score_min, bool all_classes);

// Of `reference`, how many have a box of the same class with an IoU of at least 0.5 in
// `detections`; each serves once, the best scores choose first.
int64_t CountKept(std::span<const Detection> reference, std::span<const Detection> detections);

// The same boxes in the picture's pixels.
std::vector<Detection> ToPicture(std::vector<Detection> detections,
                                 const ImagePlacement& placement);

struct AveragePrecision {
  double map50 = 0, map50_95 = 0;  // NaN where no picture has a box
};

// COCO's: over all areas, at most 100 detections of a class a picture, 101 recall levels, IoU 0.5
// to 0.95 in steps of 0.05, mean over the categories that occur. `detections` and `truth`: one list
// a picture.
AveragePrecision CocoAveragePrecision(const std::vector<std::vector<Detection>>& detections,
                                      const std::vector<std::vector<LabelledBox>>& truth);

}  // namespace pared
