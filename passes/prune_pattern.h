// Where zeros may stand in a pruned weight, and which zeros a ranking chooses.

#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "config/fields.h"
#include "passes/float_elements.h"
#include "passes/weights.h"

namespace pared {

// In the order of the names that PatternField() lists.
enum class PatternName {
  kUnstructured,
  k2x1,
  k4x1,
  k8x1,
  k1x4,
  k4x4,
  k16x4,
  k1of2,
  k2of4,
  k1of4,
  k4of8,
  k2of8,
  k8of16
};

// Blocks of `rows` output channels by `columns` consecutive k, kept or zeroed as one; or, where
// `of` is not 0, at most `keep` non-zeros among each `of` consecutive k.
//
// Tails: where rows or k do not divide, the last block or group is smaller. A smaller block is
// ranked by its mean like the others; of a smaller group of r, ceil(r * keep / of) stay. Neither
// reaches from one convolution group into the next.
struct Pattern {
  int64_t rows = 1, columns = 1;
  int64_t keep = 0, of = 0;
};

Pattern PatternOf(PatternName name);
const char* PatternText(PatternName name);
void PatternField(FieldVisitor& visitor, const char* name, PatternName& value, const char* help);

// The units (elements or blocks) of one weight, ranked by the root mean square of `importance`
// (one number for each element of the node's view; empty: the weight itself).
class PruneUnits {
 public:
  PruneUnits(const WeightSite& site, Pattern pattern, const std::vector<float>& importance = {});

  std::span<const float> scores() const { return scores_; }
  // Of the stored weight, where it is mapped: scores() may be read again at any time.
  void DropPages() const { site_.stored.DropPages(); }
  // Marks the elements (of `stored`) of each unit below the threshold; takes up to `ties` of those
  // equal to it and counts them down.
  std::vector<bool> Below(float magnitude, int64_t& ties) const;

 private:
  void ScoreBlocks(const std::vector<float>& importance);

  const WeightSite& site_;
  Pattern pattern_;
  std::vector<float> owned_;
  std::optional<FloatElements> elements_;
  std::span<const float> scores_;  // into owned_ or elements_
};

// Elements (of `stored`) that an N:M pattern zeroes: the smallest of each group.
std::vector<bool> ZeroesOfGroups(const WeightSite& site, Pattern pattern,
                                 const std::vector<float>& importance = {});

// The stored tensor with the marked elements +0.
Tensor Zeroed(const Tensor& stored, const std::vector<bool>& zero);

// Fraction of the elements that are neither 0 nor marked; 1 where there are none.
double DensityOf(const Tensor& stored, const std::vector<bool>& zero);

}  // namespace pared
