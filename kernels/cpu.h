// Which instruction set the kernels use: what the CPU has, capped by PARED_KERNELS.

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pared {

// In order of preference, worst first.
enum class Isa { kReference, kAvx2, kAvxVnni, kAvx512Vnni };

// Whether code that needs `need` may run where `isa` was selected. Each level includes those before
// it, but for AVX-VNNI: CPUs with AVX-512 VNNI may lack its VEX encoding.
constexpr bool Includes(Isa isa, Isa need) {
  return need <= isa && (need != Isa::kAvxVnni || isa == Isa::kAvxVnni);
}

// "reference", "avx2", "avxvnni", "avx512vnni"
const char* IsaName(Isa isa);

// Those this machine can run, worst first.
std::vector<Isa> AvailableIsas();

// The best this machine has, or the one that environment variable PARED_KERNELS names; read once.
// Throws kInvalidArgument where it names one that does not exist or that the machine lacks.
Isa SelectedIsa();

// The CPU's own name, as cpuid tells it ("AMD EPYC ...").
std::string CpuName();

}  // namespace pared
