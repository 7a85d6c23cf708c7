// How many bits the codes of INT8 weights use. Without VNNI, onnxruntime and OpenVINO on x86 add
// two products of 8 bits in 16, which saturates for codes beyond 64; pared's kernels do not.

#pragma once

#include "config/fields.h"

namespace pared {

enum class TargetIsa { kVnni, kAvx2 };

struct CodeRange {
  bool reduce_range = false;
  TargetIsa target_isa = TargetIsa::kVnni;

  bool is_reduced() const { return reduce_range || target_isa == TargetIsa::kAvx2; }
  int32_t code_max() const { return is_reduced() ? 63 : 127; }
};

// The fields "reduce_range" and "target_isa".
void Fields(FieldVisitor& f, CodeRange& range);

// Says in report["warnings"] where the codes are those of other machines than this one.
void WarnOfSaturation(const CodeRange& range, Json& report);

}  // namespace pared
