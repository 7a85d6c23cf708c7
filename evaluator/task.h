// What the labels of a dataset mean, and so which accuracy is measured.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/fields.h"
#include "evaluator/detection.h"

namespace pared {

enum class Task {
  kAuto,            // kClassification with labels, kDetection with boxes, kImage with targets
  kClassification,  // a class a sample: the arg max of the output
  kBinary,          // 0 or 1 a sample: the output's only element, or its second of two
  kDetection,       // boxes: the output is a YOLO head
  kImage,           // a target a sample, of the output's shape
  kCtc,             // a text a sample, as class numbers padded with -1: the output is [1, steps,
                    // classes]
  kRetrieval,  // a class a sample, which that of the nearest of the first `gallery` samples has
};

// How the axes before the last one of the output become none.
enum class Pooling { kNone, kMean };

struct TaskSpec {
  Task task = Task::kAuto;
  // What is measured: the first of these that the model has; empty: its first output of floats.
  std::vector<std::string> output;
  DetectionOptions detection;
  double threshold = 0.5;            // kBinary: at and above it a sample is positive
  double peak = 1;                   // kImage: the largest value that a pixel can have
  Pooling pooling = Pooling::kNone;  // kClassification, kRetrieval
  int64_t gallery = 1;               // kRetrieval
  int64_t blank = 0;                 // kCtc
  int64_t ignored =
      -1;  // kCtc: a class left out of the text, such as the gap between words; -1: none
};

void Fields(FieldVisitor& f, TaskSpec& t);

}  // namespace pared
