// A scatter plot in characters.
//
//   top1
//   0.9936 |                       *     .
//          |            *    .
//   0.9871 |  O
//          +--------------------------------
//           26.4 kB              105.1 kB   size_bytes

#pragma once

#include <string>
#include <vector>

namespace pared {

enum class Mark { kDominated, kFront, kKnee };

struct PlotPoint {
  double x = 0, y = 0;  // finite
  Mark mark = Mark::kFront;
};

struct PlotOptions {
  int width = 72;   // columns of the whole, at least 30
  int height = 16;  // rows of the area
  bool has_unicode = false;
  std::string x_name, y_name;
};

// Lines that each end with a line break. An axis of positive values whose greatest is more than
// twenty times its least is logarithmic, and says so. Where points fall together the knee is seen
// before the front, and the front before the others. Empty for no points.
std::string Plot(const std::vector<PlotPoint>& points, const PlotOptions& options);

}  // namespace pared
