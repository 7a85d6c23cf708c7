#include "passes/code_range.h"

#include "kernels/cpu.h"

namespace pared {

void Fields(FieldVisitor& f, CodeRange& range) {
  f.Flag("reduce_range", range.reduce_range,
         "Weights of 7 bits, for machines whose INT8 products saturate at 16 bits.");
  f.Choice("target_isa", range.target_isa, {"vnni", "avx2"},
           "What the target's machine has. \"avx2\", which stands for all x86 without VNNI, sets "
           "reduce_range by itself: onnxruntime and openvino saturate there, pared does not.");
}

void WarnOfSaturation(const CodeRange& range, Json& report) {
  const bool has_vnni = CpuHas(Isa::kAvxVnni) || CpuHas(Isa::kAvx512Vnni);
  if (range.is_reduced() || !kOnX86 || has_vnni) return;
  report["warnings"].push_back(
      "this machine has no VNNI: on one like it onnxruntime and openvino saturate products of "
      "these weights; for such a target set target_isa to \"avx2\"");
}

}  // namespace pared
