// Named inputs and labels, read sample by sample.
//
// A dataset is a folder with `dataset.json` and NumPy .npy files:
//   {"inputs": {"Input3": "images.npy"}, "labels": "labels.npy"}
// Each array's first axis counts samples. The name "*" stands for the model's only input. Or with
// pictures, which are decoded sample by sample (image_set.h), and arrays beside them for further
// inputs:
//   {"images": {"folder": "val", "preset": "torchvision"}}

#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "evaluator/image_set.h"
#include "evaluator/task.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

class Dataset {
 public:
  // Maps the files. Throws kNotFound, or kInvalidArgument naming the file and what is wrong in it.
  static Dataset Open(const std::filesystem::path& folder);

  // `samples` samples of standard normal (float), or 0 and 1 (integer: they are valid as token ids,
  // masks and lengths alike), in the shapes of `inputs`. An unknown dimension is 1; an unknown
  // height or width of an image (float, rank 4) is 224. For where no data is given.
  static Dataset Random(const std::vector<ValueInfo>& inputs, int64_t samples, int64_t seed);

  const std::string& name() const { return name_; }
  int64_t sample_count() const { return sample_count_; }
  // What accuracy is measured; kAuto: none, there is nothing to measure it by.
  const TaskSpec& task() const { return task_; }
  // Whether there is a class for each sample (tasks classification and binary).
  bool has_labels() const {
    return task_.task == Task::kClassification || task_.task == Task::kBinary;
  }
  int64_t label(int64_t sample) const;
  std::vector<int64_t> label_text(int64_t sample) const;  // task ctc
  Tensor target(int64_t sample) const;                    // task image

  // One batch of one sample for a model with these inputs, in their order. The leading axis of 1
  // is kept where the input's rank needs it. Throws kInvalidArgument naming the input, the axis
  // and both sizes where they do not fit.
  // Numbers are widened to the input's type (bytes to float, int32 to int64).
  std::vector<Tensor> Sample(int64_t sample, const std::vector<ValueInfo>& inputs) const;

  // The pictures, where the dataset has any.
  const ImageSet* images() const { return images_.get(); }

  // SHA-256 over names, array bytes, and the pictures' files and settings, hexadecimal.
  std::string Digest() const;

 private:
  std::string name_;
  int64_t sample_count_ = 0;
  // Settles the task by what there is. Throws kInvalidArgument where it lacks what it needs.
  void SettleTask();
  // The array or picture of one sample for an input; nullopt: there is none.
  std::optional<Tensor> Find(int64_t sample, const std::string& input, bool is_only) const;

  std::map<std::string, Tensor> inputs_;
  std::shared_ptr<const ImageSet> images_;
  std::optional<Tensor> labels_;   // int64, [samples], or [samples, characters] of texts
  std::optional<Tensor> targets_;  // [samples, ...]
  TaskSpec task_;
};

// A NumPy array file, format versions 1 to 3, C order, mapped. Throws kInvalidArgument.
Tensor LoadNpy(const std::filesystem::path& path);

// The same format, version 1. Throws kUnsupported where NumPy lacks the type; kUnavailable.
void SaveNpy(const Tensor& tensor, const std::filesystem::path& path);

}  // namespace pared
