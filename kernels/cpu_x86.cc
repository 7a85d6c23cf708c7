// What cpuid tells.

#include <cpuid.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "kernels/cpu.h"

namespace pared {
namespace {

// GCC 12's __builtin_cpu_supports does not know AVX-VNNI: leaf 7, subleaf 1, EAX bit 4. That the
// system saves the YMM registers follows from "avx2", which the builtin does check.
bool HasAvxVnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__builtin_cpu_supports("avx2") == 0) return false;
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (eax & (1U << 4)) != 0;
}

}  // namespace

bool CpuHas(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return true;
    case Isa::kNeonDot:
    case Isa::kNeonI8mm:
      return false;
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
    case Isa::kAvxVnni:
      return HasAvxVnni();
    case Isa::kAvx512Vnni:
      return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
             __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
             __builtin_cpu_supports("avx512vnni") != 0;
  }
  return false;
}

bool HasAvx512Vbmi() { return __builtin_cpu_supports("avx512vbmi") != 0; }

std::string CpuName() {
  std::array<uint32_t, 12> words{};  // leaves 0x80000002 to 4: 48 characters
  for (uint32_t i = 0; i < 3; ++i) {
    uint32_t* w = &words[size_t{4} * i];
    if (__get_cpuid(0x80000002 + i, &w[0], &w[1], &w[2], &w[3]) == 0) return "unknown";
  }
  std::array<char, 49> text{};
  std::memcpy(text.data(), words.data(), 48);
  std::string name(text.data());
  name.erase(name.find_last_not_of(' ') + 1);
  name.erase(0, name.find_first_not_of(' '));
  return name;
}

}  // namespace pared
