// Named inputs and labels, read sample by sample.
//
// A dataset is a folder with `dataset.json` and the files that it names (docs/data.md): arrays
//   {"inputs": {"Input3": "images.npy"}, "labels": "labels.npy"}
// whose first axis counts samples, "*" standing for the model's only input; an archive of them
// (dataset_arrays.h); pictures (image_set.h), sound (audio_set.h) or tokens, prepared sample by
// sample, and arrays or numbers beside them for further inputs.

#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "evaluator/audio_set.h"
#include "evaluator/image_set.h"
#include "evaluator/task.h"
#include "model/graph.h"
#include "model/tensor.h"

namespace pared {

class Dataset {
 public:
  // Maps the files. Throws kNotFound, or kInvalidArgument naming the file and what is wrong in it:
  // of the manifest, as FOLDER/dataset.json#POINTER.
  static Dataset Open(const std::filesystem::path& folder);

  // Of arrays in memory, [samples, ...] each, by input; there is one at least. Throws
  // kInvalidArgument where they do not have as many samples.
  static Dataset Of(std::string name, const std::map<std::string, Tensor>& arrays);

  // `samples` samples of standard normal (float), or 0 and 1 (integer: they are valid as token ids,
  // masks and lengths alike), in the shapes of `inputs`. An unknown dimension is 1; an unknown
  // height or width of an image (float, rank 4) is 224. For where no data is given.
  static Dataset Random(const std::vector<ValueInfo>& inputs, int64_t samples, int64_t seed);

  const std::string& name() const { return name_; }
  int64_t sample_count() const { return sample_count_; }
  // What accuracy is measured; kAuto: none, there is nothing to measure it by.
  const TaskSpec& task() const { return task_; }
  // Whether there is a class for each sample (tasks classification, binary and retrieval).
  bool has_labels() const {
    return task_.task == Task::kClassification || task_.task == Task::kBinary ||
           task_.task == Task::kRetrieval;
  }
  int64_t label(int64_t sample) const;
  std::vector<int64_t> label_text(int64_t sample) const;  // task ctc
  Tensor target(int64_t sample) const;                    // task image

  // One batch of one sample for a model with these inputs, in their order. The leading axis of 1
  // is kept where the input's rank needs it. Throws kInvalidArgument naming the input, the axis
  // and both sizes where they do not fit.
  // Numbers are widened to the input's type (bytes to float, int32 to int64).
  std::vector<Tensor> Sample(int64_t sample, const std::vector<ValueInfo>& inputs) const;

  // Inputs that a model remembers in, and the outputs that give them for the sample after; each
  // sequence starts with zeros (evaluator/run_samples.h).
  const std::map<std::string, std::string>& state() const { return state_; }
  // The first sample of each sequence, rising from 0: a file of sound, else all samples.
  std::vector<int64_t> sequence_starts() const;
  // What Sample() gives for such an input in place of zeros, [samples, ...]. Not in the digest.
  void SetStates(const std::string& input, Tensor states);

  // The pictures, where the dataset has any.
  const ImageSet* images() const { return images_.get(); }

  // SHA-256 over names, array bytes, and the pictures' files and settings, hexadecimal.
  std::string Digest() const;

 private:
  static Dataset Read(const std::filesystem::path& folder);
  // Throws kInvalidArgument at `where` unless there are as many `what` as of what came before.
  void SettleCount(int64_t count, const std::string& where, const std::string& what);
  void AddArrays(const std::map<std::string, Tensor>& arrays);
  // Cuts the samples of these arrays to their lengths.
  void Pad(const std::optional<Tensor>& lengths, const std::map<std::string, Tensor>& arrays);
  // Settles the task by what there is. Throws kInvalidArgument where it lacks what it needs.
  void SettleTask();
  Tensor Prepare(int64_t sample, const ValueInfo& input, bool is_only) const;
  // The array or picture of one sample for an input; nullopt: there is none.
  std::optional<Tensor> Find(int64_t sample, const std::string& input, bool is_only) const;

  void CountRead(const Tensor& array, const Tensor& sample) const;

  std::string name_;
  int64_t sample_count_ = 0;
  std::map<std::string, Tensor> inputs_;
  // Of all arrays together, since their pages were let go last.
  std::shared_ptr<std::atomic<size_t>> bytes_read_ = std::make_shared<std::atomic<size_t>>(0);
  std::map<std::string, Tensor> lengths_;  // of inputs that have one: int64, [samples]
  std::map<std::string, double> constants_;
  std::map<std::string, std::string> state_;
  std::map<std::string, Tensor> states_;
  std::shared_ptr<const ImageSet> images_;
  std::shared_ptr<const AudioSet> audio_;
  std::optional<Tensor> labels_;   // int64, [samples], or [samples, characters] of texts
  std::optional<Tensor> targets_;  // [samples, ...]
  TaskSpec task_;
};

}  // namespace pared
