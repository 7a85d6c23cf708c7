// Feeds a candidate the selections that the float model makes.
//
// Before:  p = boxes at NonMaxSuppression(...)   r = RoiAlign(features, p)   y = Gemm(r, w)
// After:   p = boxes at an input                 r = RoiAlign(features, p)   y = Gemm(r, w)
//
// What is computed for each selected element cannot be compared otherwise: row 5 of y is of another
// box where one more was selected before it.

#pragma once

#include <string>
#include <vector>

#include "model/graph.h"

namespace pared {

// The places (int64) that NonMaxSuppression, TopK or NonZero select by the data, in node order,
// where one of `judged` follows from them. Empty, too, where the number of elements follows from
// the data in a way that cannot be fed.
std::vector<std::string> FindSelections(const Model& model, const std::vector<std::string>& judged);

// Makes these values inputs, the last ones.
void FeedSelections(Model& model, const std::vector<std::string>& selections);

}  // namespace pared
