// How strong each channel of each value is, as the weights tell, for where no data does.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "passes/channel_groups.h"

namespace pared {

enum class Norm { kL2, kL1 };

// Of each slice of the cut: the sum of squares, or of magnitudes.
std::vector<double> NormsOf(const Tensor& weight, const ChannelCut& cut, Norm norm);

// A layer gives each channel the norm of its weights. From there to the readers it is followed
// forward: additions add it, products (gates) multiply it, depthwise convolutions multiply it by
// theirs. What is always zero has none, and so whatever reads it loses nothing with it. Times the
// norm of a reader's slice this is the channel's share of all paths through both layers (Tanaka et
// al., Pruning neural networks without any data by iteratively conserving synaptic flow, 2020).
//
// BatchNormalization has measured what comes of a layer: its scale takes the place of the norm. A
// constant counts only where there is nothing else: a bias says less of how much a channel varies.
class ChannelStrengths {
 public:
  // Both must outlive this.
  ChannelStrengths(const Model& model, const ChannelGroups& groups, Norm norm);

  // What channels of these groups have in the value, on average; 1 where it is not known.
  std::vector<double> Of(const std::string& value, const std::vector<int64_t>& groups) const;

 private:
  using Strengths = std::vector<double>;  // of the channels of a value, in their order

  struct Mean {
    double sum = 0, count = 0;
  };
  using Means = std::unordered_map<int64_t, Mean>;  // by group

  void Add(const std::string& value, Means& means) const;
  static Strengths From(const Means& means, const std::vector<int64_t>& groups);
  Strengths After(size_t number, const std::string& output) const;
  Strengths Made(size_t number) const;
  Strengths Depthwise(size_t number, const Channels& out) const;
  Strengths Normalized(size_t number, const Channels& out) const;
  Strengths Joined(size_t number, const Channels& out) const;
  Strengths Carried(size_t number, const Channels& out) const;
  Strengths NormsAt(size_t number, size_t input) const;
  void FillDead(size_t number, size_t input, Strengths& strengths) const;

  const Model& model_;
  const ChannelGroups& groups_;
  const Norm norm_;
  GraphIndex index_;
  std::map<std::pair<size_t, size_t>, const ChannelCut*> cuts_;  // by node and input
  std::unordered_map<std::string, Strengths> strengths_;
};

}  // namespace pared
