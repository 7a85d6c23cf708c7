#include "passes/float_bounds.h"

namespace pared {

void Fields(FieldVisitor& f, FloatBounds& o) {
  f.Choice("keep_float", o.keep_float, {"auto", "off"},
           "The most sensitive nodes return to float, one in five at most (of three or four one), "
           "where the worst output would have less than 20 dB on calibration samples; or none do.");
  f.Number("min_sqnr_db", o.min_sqnr_db, {0, 200},
           "As many of the most sensitive nodes return to float as it takes for the worst output, "
           "and what the report calls judged_values, to have this SQNR on calibration samples; 0: "
           "keep_float decides.");
  f.Number("max_accuracy_drop", o.max_accuracy_drop, {0, FloatBounds::kAnyDrop},
           "As many return to float as it takes for the first figure of the calibration data's "
           "task (top1, map50 ...; without labels the share of samples with the float model's arg "
           "max) to drop by no more; 100: no bound.");
  f.Integer("max_nodes_float", o.max_nodes_float, {0, 1000000},
            "So many nodes at most return to float; where a bound needs more, it is an error.");
}

std::string BoundIn(const Json& options) {
  FloatBounds bounds;
  bounds.min_sqnr_db = options.value("min_sqnr_db", bounds.min_sqnr_db);
  bounds.max_accuracy_drop = options.value("max_accuracy_drop", bounds.max_accuracy_drop);
  return BoundIn(bounds);
}

std::string BoundIn(const FloatBounds& bounds) {
  if (bounds.min_sqnr_db > 0) return "min_sqnr_db " + DumpJson(bounds.min_sqnr_db);
  if (bounds.max_accuracy_drop == FloatBounds::kAnyDrop) return "";
  return "max_accuracy_drop " + DumpJson(bounds.max_accuracy_drop);
}

}  // namespace pared
