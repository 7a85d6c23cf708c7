#include "kernels/sums.h"

#include <limits>

#pragma GCC push_options
#pragma GCC optimize("O3")

namespace pared {
namespace {

namespace plain {
#include "kernels/sums_body.h"
}  // namespace plain

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
#include "kernels/sums_body.h"
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
#include "kernels/sums_body.h"
}  // namespace avx512
#pragma GCC pop_options
#endif

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
