// What a quantized model must keep of the float model's results, and how many of its nodes may
// return to float for that.

#pragma once

#include <cstdint>
#include <string>

#include "config/fields.h"

namespace pared {

struct FloatBounds {
  static constexpr double kAnyDrop = 100;  // no bound
  enum class KeepFloat { kAuto, kOff };

  KeepFloat keep_float = KeepFloat::kAuto;
  double min_sqnr_db = 0;
  double max_accuracy_drop = kAnyDrop;
  int64_t max_nodes_float = 1000;

  // Whether one is asked for, so that a model that does not keep it is an error.
  bool has_any() const { return min_sqnr_db > 0 || max_accuracy_drop < kAnyDrop; }
  // Whether the result is to be measured.
  bool are_measured() const { return has_any() || keep_float == KeepFloat::kAuto; }
};

// The fields "keep_float", "min_sqnr_db", "max_accuracy_drop" and "max_nodes_float".
void Fields(FieldVisitor& f, FloatBounds& bounds);

// The first bound that a pass's options ask for, as "min_sqnr_db 20"; empty: they ask for none or
// know none.
std::string BoundIn(const Json& options);
std::string BoundIn(const FloatBounds& bounds);

}  // namespace pared
