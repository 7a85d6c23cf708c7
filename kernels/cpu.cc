#include "kernels/cpu.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "base/error.h"

namespace pared {
namespace {

constexpr std::array kIsas = {Isa::kReference, Isa::kNeonDot, Isa::kNeonI8mm,
                              Isa::kAvx2,      Isa::kAvxVnni, Isa::kAvx512Vnni};

std::string Names(const std::vector<Isa>& isas) {
  std::string names;
  for (Isa isa : isas) names += (names.empty() ? "" : ", ") + std::string(IsaName(isa));
  return names;
}

Isa ReadSelectedIsa() {
  const std::vector<Isa> available = AvailableIsas();
  const char* name = std::getenv("PARED_KERNELS");
  if (name == nullptr || *name == '\0') return available.back();
  for (Isa isa : available) {
    if (std::strcmp(name, IsaName(isa)) == 0) return isa;
  }
  throw Error(ErrorCode::kInvalidArgument,
              "\"" + std::string(name) + "\" is no kernel level of this machine, which has " +
                  Names(available),
              "PARED_KERNELS");
}

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kNeonDot:
      return "neon_dot";
    case Isa::kNeonI8mm:
      return "neon_i8mm";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
  }
  return "unknown";
}

std::vector<Isa> AvailableIsas() {
  std::vector<Isa> available;
  std::copy_if(kIsas.begin(), kIsas.end(), std::back_inserter(available), CpuHas);
  return available;
}

Isa SelectedIsa() {
  static const Isa isa = ReadSelectedIsa();
  return isa;
}

}  // namespace pared
