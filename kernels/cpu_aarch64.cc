// What the kernel tells of an aarch64 CPU.

#include <asm/hwcap.h>
#include <sys/auxv.h>

#include <array>
#include <cstdint>
#include <cstdio>

#include "kernels/cpu.h"

namespace pared {
namespace {

struct Part {
  uint32_t implementer, part;
  const char* name;
};

// Arm's own cores that servers and boards have; others are named by their numbers.
constexpr std::array kParts = {
    Part{0x41, 0xd05, "Arm Cortex-A55"},   Part{0x41, 0xd0b, "Arm Cortex-A76"},
    Part{0x41, 0xd0c, "Arm Neoverse N1"},  Part{0x41, 0xd0d, "Arm Cortex-A77"},
    Part{0x41, 0xd40, "Arm Neoverse V1"},  Part{0x41, 0xd41, "Arm Cortex-A78"},
    Part{0x41, 0xd42, "Arm Cortex-A78AE"}, Part{0x41, 0xd49, "Arm Neoverse N2"},
    Part{0x41, 0xd4f, "Arm Neoverse V2"},
};

}  // namespace

bool CpuHas(Isa isa) {
  const bool has_dot = (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
  switch (isa) {
    case Isa::kReference:
      return true;
    case Isa::kNeonDot:
      return has_dot;
    case Isa::kNeonI8mm:
      return has_dot && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    case Isa::kAvx2:
    case Isa::kAvxVnni:
    case Isa::kAvx512Vnni:
      return false;
  }
  return false;
}

bool HasAvx512Vbmi() { return false; }

std::string CpuName() {
  // Linux answers reads of this register where it says so.
  if ((getauxval(AT_HWCAP) & HWCAP_CPUID) == 0) return "aarch64";
  uint64_t midr = 0;
  asm("mrs %0, MIDR_EL1" : "=r"(midr));
  const uint32_t implementer = midr >> 24 & 0xff, part = midr >> 4 & 0xfff;
  for (const Part& known : kParts) {
    if (known.implementer == implementer && known.part == part) return known.name;
  }
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "aarch64 implementer 0x%02x part 0x%03x", implementer,
                part);
  return text.data();
}

}  // namespace pared
