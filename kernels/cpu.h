// Which instruction set the kernels use: what the CPU has, capped by PARED_KERNELS.

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pared {

// In order of preference, worst first; those of other architectures are never there.
enum class Isa { kReference, kNeonDot, kNeonI8mm, kAvx2, kAvxVnni, kAvx512Vnni };

#ifdef __x86_64__
constexpr bool kOnX86 = true;
#else
constexpr bool kOnX86 = false;
#endif
#ifdef __aarch64__
constexpr bool kOnAarch64 = true;
#else
constexpr bool kOnAarch64 = false;
#endif

constexpr bool IsNeon(Isa isa) { return isa == Isa::kNeonDot || isa == Isa::kNeonI8mm; }

// Whether code that needs `need` may run where `isa` was selected. Each level includes those before
// it of its architecture, but for AVX-VNNI: CPUs with AVX-512 VNNI may lack its VEX encoding.
constexpr bool Includes(Isa isa, Isa need) {
  if (IsNeon(need) && !IsNeon(isa)) return false;
  return need <= isa && (need != Isa::kAvxVnni || isa == Isa::kAvxVnni);
}

// "reference", "neon_dot", "neon_i8mm", "avx2", "avxvnni", "avx512vnni"
const char* IsaName(Isa isa);

// Those this machine can run, worst first.
std::vector<Isa> AvailableIsas();

// The best this machine has, or the one that environment variable PARED_KERNELS names; read once.
// Throws kInvalidArgument where it names one that does not exist or that the machine lacks.
Isa SelectedIsa();

// The CPU's own name: as cpuid tells it ("AMD EPYC ..."), on aarch64 by its part number
// ("Arm Neoverse N1").
std::string CpuName();

// Whether the CPU can run `isa`: cpu_x86.cc and cpu_aarch64.cc.
bool CpuHas(Isa isa);
bool HasAvx512Vbmi();

}  // namespace pared
