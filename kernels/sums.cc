#include "kernels/sums.h"

#include <limits>

#pragma GCC push_options
#pragma GCC optimize("O3")

namespace pared {
namespace {

#define PARED_LOOPS "kernels/sums_body.h"
#include "kernels/each_isa.h"

template <class... Arguments>
void Dispatch(Isa isa, const Arguments&... arguments) {
#ifdef __x86_64__
  if (Includes(isa, Isa::kAvx512Vnni)) return avx512::Store(arguments...);
  if (Includes(isa, Isa::kAvx2)) return avx2::Store(arguments...);
#endif
  static_cast<void>(isa);
  plain::Store(arguments...);
}

}  // namespace

void StoreSums(const SumLine& line, int32_t* y, Isa isa) noexcept { Dispatch(isa, line, y); }

void StoreSums(const SumLine& line, const SumsToFloat& to, float* y, Isa isa) noexcept {
  Dispatch(isa, line, to, y);
}

void StoreSums(const SumLine& line, const SumsToCodes& to, uint8_t* y, Isa isa) noexcept {
  Dispatch(isa, line, to, y);
}

}  // namespace pared

#pragma GCC pop_options
