// Which channels of a model can only go together, and what has to be cut where they go.
//
// Every element along the channel axis of a value is a channel, numbered when a Conv,
// ConvTranspose, Gemm or MatMul with a constant weight makes it. Following it through the graph
// joins channels to groups: an Add of two values joins them pairwise, a Concat strings them
// together, a depthwise convolution hands its input's on, a grouped one joins those at the same
// place of each group, Flatten repeats each. A channel whose way cannot be followed is pinned: it
// and its group stay, and the reason is kept.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

// A constant float operand that loses a slice along `axis` for each channel that goes.
enum class CutRole { kMakes, kReads, kCarries };
struct ChannelCut {
  size_t node = 0, input = 0, axis = 0;
  std::vector<int64_t> channels;  // group of each slice
  CutRole role = CutRole::kCarries;
};

// An element of a constant int64 operand that says how many of `channels` there are.
struct SizeCut {
  size_t node = 0, input = 0, element = 0;
  std::vector<int64_t> channels;
};

struct Channels {
  size_t axis = 0;
  std::vector<int64_t> ids;
};

struct ChannelGroups {
  std::vector<ChannelCut> cuts;
  std::vector<SizeCut> sizes;
  std::map<size_t, std::vector<int64_t>> group_attributes;  // depthwise nodes: group = how many
  std::map<std::string, Channels> values;                   // of the main graph
  std::map<int64_t, std::string> pinned;                    // group to the reason
  std::vector<int64_t> groups;                              // all, in ascending order
};

// Node numbers are those of the main graph; every channel is given as the number of its group.
ChannelGroups FindChannelGroups(const Model& model);

}  // namespace pared
