// Which instruction set the kernels use: what the CPU has, capped by PARED_KERNELS.

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace pared {

// In order of preference, worst first. Each level includes those before it.
enum class Isa { kReference, kAvx2, kAvxVnni, kAvx512Vnni };

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
