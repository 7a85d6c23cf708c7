#include "model/tflite_ops.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

namespace pared {
namespace {

using Converters = std::unordered_map<std::string, const TfliteOpInfo*>;

const Converters& AllOps() {
  static const Converters kAll = [] {
    Converters all;
    for (const auto ops :
         {TfliteComputeOps(), TfliteElementwiseOps(), TfliteReduceOps(), TfliteLayoutOps(),
          TfliteSelectOps(), TfliteRecurrentOps(), TfliteControlOps()}) {
      for (const TfliteOpInfo& op : ops) all.emplace(op.type, &op);
    }
    return all;
  }();
  return kAll;
}

// Complex numbers are held as pairs along an axis of their own, which few operators look out for.
void CheckComplex(const TfliteValues& values, const TfliteOp& op) {
  static constexpr std::string_view kWithPairs[] = {"REAL",    "IMAG",    "COMPLEX_ABS", "CAST",
                                                    "RESHAPE", "SQUEEZE", "EXPAND_DIMS"};
  if (std::ranges::find(kWithPairs, op.type) != std::end(kWithPairs)) return;
  for (const int64_t t : op.inputs) {
    values.Require(t < 0 || values.tensor(t).dtype != DType::kComplex64,
                   "it is not supported for complex numbers");
  }
}

}  // namespace

bool IsTfliteOp(const std::string& type) { return AllOps().contains(type); }

std::string FaultOf(const TfliteOp& op) {
  const TfliteOpInfo& info = *AllOps().at(op.type);
  if (op.inputs.size() < info.inputs || op.outputs.empty()) {
    return "it needs " + std::to_string(info.inputs) + " inputs and an output";
  }
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    if (op.inputs[i] < 0 && (!info.has_optional || i < info.inputs)) {
      return "input " + std::to_string(i) + " is left out";
    }
  }
  return "";
}

void AddTfliteOp(TfliteValues& values, const TfliteOp& op) {
  values.Begin(op);
  const std::string fault = FaultOf(op);
  values.Require(fault.empty(), fault);
  CheckComplex(values, op);
  AllOps().at(op.type)->convert(values, op);
}

}  // namespace pared
