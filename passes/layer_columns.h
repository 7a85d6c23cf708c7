// What one weighted node reads on the calibration data, as columns of a matrix product.
//
// Conv is seen as a matrix product over windows (im2col) at sampled output positions, the same in
// both models; which ones follows from the sample's number and the sizes alone.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "passes/layer_stream.h"
#include "passes/weights.h"

namespace pared {

// Inputs [begin, end) of one group of a layer, which are fitted together.
struct InputPart {
  int64_t group = 0, begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};
InputPart WholeGroup(const WeightSite& site, int64_t group);
// Each group as a whole; but as work and memory grow with the square of what is fitted together and
// more, parts of 1024 inputs, or the multiple of `multiple` nearest below, where a group has more
// than the 4608 of a 3x3 convolution over 512 channels. Second moments across parts are then taken
// to be 0.
std::vector<InputPart> PartsOf(const WeightSite& site, int64_t multiple = 1);

// Rows in which a number is not finite, or so large that sums of squares would not be, are left
// out.
struct LayerColumns {
  int64_t k = 0, count = 0;
  int64_t left_out = 0;
  std::vector<float> original, edited;  // [count][k], of the two models
  // [count][rows]: what the original model's skip connection has more than the edited one's.
  std::vector<float> skip_loss;
};

struct ColumnsRequest {
  const WeightSite* site = nullptr;
  InputPart part;
  int64_t columns = 0;          // wanted of all samples together
  int64_t folds = 1, fold = 0;  // only every folds-th sample, from `fold` on
  // Of a matrix product, the skip connection: the value that its output is added to; empty: none.
  // It loses nothing where its shape is not that of the output. Each part makes up for its share.
  std::string skip = {};
  // Of a matrix product: also the position of each sample that holds its largest input, which may
  // be the one token of a thousand that a range must not cut.
  bool with_largest = false;
};
// Of a site that WhyNoStatistics (layer_statistics.h) allows, right before its node. nullopt: the
// layer's input is constant or not float32.
std::optional<LayerColumns> TakeColumns(const LayerStream& stream, const ColumnsRequest& request);

// What each position counts in a sum of squared errors, from the energy of its row of `y`
// [count][rows]. A matrix product is normalized row by row later on (LayerNormalization, Softmax),
// so there an error counts against the energy of its row; rows that hardly say anything count no
// more than the middle one. Of a convolution all count alike. The sum of weight times energy is
// about 1.
std::vector<double> PositionWeights(const WeightSite& site, const std::vector<float>& y,
                                    int64_t rows);

}  // namespace pared
