// Runs a model and its edited copy side by side over the calibration samples, stopping before each
// chosen node.
//
// The graph is cut before every such node. What is alive at a cut is kept for every sample, so each
// node runs once a sample and model, however many layers there are: the input that a layer gets
// from the layers edited before it costs no second run of these. Until the first edit one run
// serves both models.
//
// Where the live values of all samples would pass a limit, only some of the samples begin. The
// others join where values have become small enough, by one run of both models up to there: the
// last layers, which have the fewest positions in a sample, are the ones that need many samples.

#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "model/graph.h"
#include "passes/own_copy.h"
#include "passes/pass.h"

namespace pared {

class LayerStream {
 public:
  static constexpr int64_t kLiveBytesMax = int64_t{1} << 28;

  // So many samples of context.calibration, evenly from all; fewer, but kSamplesMin, of a model
  // whose products take more than `macs` multiplications for all of them. So many at once as have
  // no more than `live_bytes` of values alive.
  struct Bounds {
    int64_t samples = 0;
    int64_t macs = int64_t{1} << 62;
    int64_t live_bytes = kLiveBytesMax;
  };
  static constexpr int64_t kSamplesMin = 16;

  // `original` must outlive this.
  LayerStream(const Model& original, PassContext& context, const Bounds& bounds);

  // To just before node `index` of the main graph; indices ascend. `edited` has the nodes of the
  // original at the same indices.
  void AdvanceTo(size_t index, const Model& edited);

  // Of those before the node advanced to.
  int64_t sample_count() const { return std::ssize(live_); }
  // Values before the node advanced to; null: not alive, or constant.
  const Tensor* Original(int64_t sample, const std::string& value) const;
  const Tensor* Edited(int64_t sample, const std::string& value) const;

  // Who reads values says how much of them, so that what lies in files does not come to lie in
  // memory whole. Thread-safe.
  void CountRead(int64_t bytes) const;

 private:
  using Values = std::map<std::string, Tensor>;
  struct Sample {
    int64_t number = 0;  // of samples_
    Values original, edited;
  };

  void IndexNodes();
  std::vector<int64_t> FindCapacities();
  SpillFile& NewFile();
  Sample Load(int64_t number, int64_t at, SpillFile& file) const;
  void AddInputs(const Node& node, std::vector<std::string>& names) const;
  Model Segment(const Model& model, size_t begin, size_t end, const Values& values) const;
  void TakeConstants(const Model& model, const std::string& value, std::vector<size_t>& taken,
                     Model& segment) const;
  // Of `samples`, which come after `first` others.
  void RunSegment(const Model& segment, size_t end, bool is_edited, std::vector<Sample>& samples,
                  int64_t first);
  void DropSamples();
  void JoinSamples(size_t index, const Model& edited);
  void Forget(Values& values, size_t end) const;

  const Model& original_;
  PassContext& context_;
  const int64_t live_bytes_max_;
  size_t at_ = 0;
  bool is_cut_ = false;
  bool is_split_ = false;            // whether `edited` values are kept apart
  std::vector<int64_t> samples_;     // of context.calibration, all that may join
  std::vector<int64_t> capacities_;  // by node: so many samples may be alive from there to the end
  std::vector<int64_t> stays_;       // by node: so many samples' values before it stay in memory
  std::vector<Sample> live_;         // by number
  std::vector<std::unique_ptr<SpillFile>> files_;  // of live values
  mutable std::atomic<size_t> bytes_read_ = 0;
  std::unordered_map<std::string, size_t> last_use_;
  std::unordered_map<std::string, size_t> constant_producer_;
  std::vector<bool> is_constant_;  // by node
};

}  // namespace pared
