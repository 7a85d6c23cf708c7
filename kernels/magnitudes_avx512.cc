#include "kernels/magnitudes_avx512.h"

#include <immintrin.h>

#include <algorithm>
#include <array>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,bmi2,popcnt")

namespace pared {

int64_t SplitMagnitudesAvx512(std::span<const float> values, MagnitudeRange range,
                              std::vector<uint32_t>& within) {
  constexpr size_t kBuffer = 4096;
  std::array<uint32_t, kBuffer + 16> found;  // a compressed store to memory is slow on Zen 4
  size_t count = 0;
  int64_t below = 0;
  const __m512i low = _mm512_set1_epi32(static_cast<int32_t>(range.low));
  const __m512i width = _mm512_set1_epi32(static_cast<int32_t>(range.high - range.low));
  const __m512i magnitude_mask = _mm512_set1_epi32(static_cast<int32_t>(kMagnitudeMask));
  for (size_t i = 0; i < values.size(); i += 16) {
    const size_t left = std::min<size_t>(16, values.size() - i);
    const auto live = static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<unsigned>(left)));
    const __m512i bits = _mm512_maskz_loadu_epi32(live, values.data() + i);
    const __m512i magnitudes = _mm512_and_epi32(bits, magnitude_mask);
    below += _mm_popcnt_u32(_mm512_mask_cmplt_epu32_mask(live, magnitudes, low));
    const __mmask16 hits =
        _mm512_mask_cmple_epu32_mask(live, _mm512_sub_epi32(magnitudes, low), width);
    if (hits == 0) continue;
    _mm512_storeu_si512(found.data() + count, _mm512_maskz_compress_epi32(hits, magnitudes));
    count += static_cast<size_t>(_mm_popcnt_u32(hits));
    if (count < kBuffer) continue;
    within.insert(within.end(), found.begin(), found.begin() + static_cast<int64_t>(count));
    count = 0;
  }
  within.insert(within.end(), found.begin(), found.begin() + static_cast<int64_t>(count));
  return below;
}

}  // namespace pared

#pragma GCC pop_options
