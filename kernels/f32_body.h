// The bodies of the float kernels over a vector type, included by one file for each instruction
// set after its `target` pragma and inside a namespace of its own. `Vec` has kWidth floats and the
// operations used below; nothing here may call a function shared with other files.
//
// No include guard on purpose: each includer makes its own copy.

inline Vec Clamp(Vec x, Vec low, Vec high) { return Min(high, Max(low, x)); }

// exp by 2^n * p(r), |r| <= ln 2 / 2; relative error below 2e-7.
inline Vec Exp(Vec x) {
  const Vec bounded = Clamp(x, Vec(-87.33654F), Vec(88.72283F));
  const Vec n = Round(bounded * Vec(1.44269504F));
  Vec r = Fma(n, Vec(-0.693359375F), bounded);
  r = Fma(n, Vec(2.12194440e-4F), r);
  Vec p = Vec(1.9875691500e-4F);
  p = Fma(p, r, Vec(1.3981999507e-3F));
  p = Fma(p, r, Vec(8.3334519073e-3F));
  p = Fma(p, r, Vec(4.1665795894e-2F));
  p = Fma(p, r, Vec(1.6666665459e-1F));
  p = Fma(p, r, Vec(5.0000001201e-1F));
  p = Fma(p, r * r, r + Vec(1.0F));
  return TimesPowerOfTwo(p, n);
}

inline Vec Sigmoid(Vec x) { return Vec(1.0F) / (Vec(1.0F) + Exp(Vec(0.0F) - x)); }

// The odd series below 0.3, where the quotient of exponentials would cancel.
inline Vec Tanh(Vec x) {
  const Vec square = x * x;
  Vec series = Vec(0.0218694885F);
  series = Fma(series, square, Vec(-0.0539682540F));
  series = Fma(series, square, Vec(0.1333333333F));
  series = Fma(series, square, Vec(-0.3333333333F));
  series = Fma(series * square, x, x);
  const Vec e = Exp(Clamp(x, Vec(-10.0F), Vec(10.0F)) * Vec(2.0F));
  const Vec quotient = (e - Vec(1.0F)) / (e + Vec(1.0F));
  return SelectLess(Abs(x), Vec(0.3F), series, quotient);
}

// Abramowitz and Stegun 7.1.26, absolute error 1.5e-7; the Taylor series below 0.5.
inline Vec Erf(Vec x) {
  const Vec magnitude = Abs(x);
  const Vec square = x * x;
  Vec series = Vec(-8.54832702e-4F);
  series = Fma(series, square, Vec(5.22397762e-3F));
  series = Fma(series, square, Vec(-2.68661706e-2F));
  series = Fma(series, square, Vec(1.12837917e-1F));
  series = Fma(series, square, Vec(-3.76126389e-1F));
  series = Fma(series, square, Vec(1.12837917F));
  series = series * x;
  const Vec t = Vec(1.0F) / Fma(magnitude, Vec(0.3275911F), Vec(1.0F));
  Vec p = Vec(1.061405429F);
  p = Fma(p, t, Vec(-1.453152027F));
  p = Fma(p, t, Vec(1.421413741F));
  p = Fma(p, t, Vec(-0.284496736F));
  p = Fma(p, t, Vec(0.254829592F));
  const Vec tail = Vec(1.0F) - p * t * Exp(Vec(0.0F) - square);
  return SelectLess(magnitude, Vec(0.5F), series, CopySign(tail, x));
}

inline Vec GeluTanh(Vec x) {
  const Vec inner = Vec(0.7978845608F) * Fma(x * x * x, Vec(0.044715F), x);
  return x * Vec(0.5F) * (Vec(1.0F) + Tanh(inner));
}

// A template argument, so that no loop branches on it.
template <ActivationKind kKind>
inline Vec Activated(Vec x, Vec alpha, Vec beta) {
  if constexpr (kKind == ActivationKind::kClamp) return Clamp(x, alpha, beta);
  if constexpr (kKind == ActivationKind::kLeakyRelu) {
    return SelectLess(x, Vec(0.0F), x * alpha, x);
  }
  if constexpr (kKind == ActivationKind::kSigmoid) return Sigmoid(x);
  if constexpr (kKind == ActivationKind::kTanh) return Tanh(x);
  if constexpr (kKind == ActivationKind::kHardSigmoid) {
    return Clamp(Fma(x, alpha, beta), Vec(0.0F), Vec(1.0F));
  }
  if constexpr (kKind == ActivationKind::kHardSwish) {
    return x * Clamp(Fma(x, Vec(1.0F / 6), Vec(0.5F)), Vec(0.0F), Vec(1.0F));
  }
  if constexpr (kKind == ActivationKind::kSilu) return x * Sigmoid(x * alpha);
  if constexpr (kKind == ActivationKind::kGelu) {
    return x * Vec(0.5F) * (Vec(1.0F) + Erf(x * Vec(0.70710678F)));
  }
  if constexpr (kKind == ActivationKind::kGeluTanh) return GeluTanh(x);
  if constexpr (kKind == ActivationKind::kExp) {
    // What overflows and what is below the normal numbers, which Exp clamps: masks hold -infinity.
    const Vec overflowed =
        SelectLess(Vec(88.72283F), x, Vec(std::numeric_limits<float>::infinity()), Exp(x));
    return SelectLess(x, Vec(-87.33654F), Vec(0.0F), overflowed);
  }
  if constexpr (kKind == ActivationKind::kErf) return Erf(x);
  return x;
}

// Rows of floats, in place.
struct Rows {
  float* data;
  int64_t count, floats, step;
};

template <ActivationKind kKind>
void ActivateWith(const ActivationF32& activation, const Rows& rows) {
  const Vec alpha(activation.alpha);
  const Vec beta(activation.beta);
  for (int64_t r = 0; r < rows.count; ++r) {
    float* x = rows.data + r * rows.step;
    int64_t i = 0;
    for (; i + Vec::kWidth <= rows.floats; i += Vec::kWidth) {
      Activated<kKind>(Vec::Load(x + i), alpha, beta).Store(x + i);
    }
    if (i < rows.floats) {
      const int64_t left = rows.floats - i;
      Activated<kKind>(Vec::LoadFirst(x + i, left), alpha, beta).StoreFirst(x + i, left);
    }
  }
}

void ActivateRows(const ActivationF32& activation, const Rows& rows) {
  switch (activation.kind) {
    case ActivationKind::kNone:
      return;
#define PARED_ACTIVATION(kind) \
  case ActivationKind::kind:   \
    return ActivateWith<ActivationKind::kind>(activation, rows)
      PARED_ACTIVATION(kClamp);
      PARED_ACTIVATION(kLeakyRelu);
      PARED_ACTIVATION(kSigmoid);
      PARED_ACTIVATION(kTanh);
      PARED_ACTIVATION(kHardSigmoid);
      PARED_ACTIVATION(kHardSwish);
      PARED_ACTIVATION(kSilu);
      PARED_ACTIVATION(kGelu);
      PARED_ACTIVATION(kGeluTanh);
      PARED_ACTIVATION(kExp);
      PARED_ACTIVATION(kErf);
#undef PARED_ACTIVATION
  }
}

void Activate(const ActivationF32& activation, float* x, int64_t count) noexcept {
  ActivateRows(activation, {x, 1, count, 0});
}

#include "kernels/f32_tap_body.h"
#include "kernels/f32_tile_body.h"

// Copies one run of rows [begin, end): kWhole vectors, and one that ends where the run does.
template <int kWhole, bool kTail>
void CopyRun(const PackColumnsF32& pack, const PixelRun& run, int64_t begin, int64_t end) {
  const float* source = pack.source + run.source;
  float* to = pack.target + begin * kTileColumns + run.target;
  const int64_t last = run.count - Vec::kWidth;
  for (int64_t k = begin; k < end; ++k, to += kTileColumns) {
    const float* from = source + pack.offsets[k];
    Vec parts[kWhole];
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) parts[v] = Vec::Load(from + v * Vec::kWidth);
#pragma GCC unroll 4
    for (int v = 0; v < kWhole; ++v) parts[v].Store(to + v * Vec::kWidth);
    if (kTail) Vec::Load(from + last).Store(to + last);
  }
}

inline void CopyShortRun(const PackColumnsF32& pack, const PixelRun& run, int64_t begin,
                         int64_t end) {
  const float* source = pack.source + run.source;
  float* to = pack.target + begin * kTileColumns + run.target;
  for (int64_t k = begin; k < end; ++k, to += kTileColumns) {
    Vec::LoadFirst(source + pack.offsets[k], run.count).StoreFirst(to, run.count);
  }
}

// Run by run, so that no row decides anew how to copy; in parts of rows that stay in L1.
void PackColumns(const PackColumnsF32& pack) noexcept {
  static_assert(kTileVectors <= 4, "the switch below ends at four vectors");
  constexpr int64_t kPart = 16 * 1024 / (kTileColumns * 4);
  for (int64_t begin = 0; begin < pack.k; begin += kPart) {
    const int64_t end = begin + kPart < pack.k ? begin + kPart : pack.k;
    for (int64_t i = 0; i < pack.run_count; ++i) {
      const PixelRun& run = pack.runs[i];
      const bool is_whole = run.count % Vec::kWidth == 0;
      switch (run.count / Vec::kWidth) {
        case 0:
          CopyShortRun(pack, run, begin, end);
          break;
        case 1:
          is_whole ? CopyRun<1, false>(pack, run, begin, end)
                   : CopyRun<1, true>(pack, run, begin, end);
          break;
        case 2:
          is_whole ? CopyRun<2, false>(pack, run, begin, end)
                   : CopyRun<2, true>(pack, run, begin, end);
          break;
        case 3:
          is_whole ? CopyRun<3, false>(pack, run, begin, end)
                   : CopyRun<3, true>(pack, run, begin, end);
          break;
        default:
          CopyRun<4, false>(pack, run, begin, end);
      }
    }
  }
}

// Row by row: the columns of one panel alone lie a plane apart, each on another page.
void PackRows(const PackRowsF32& pack) noexcept {
  for (int64_t k = 0; k < pack.k; ++k) {
    const float* from = pack.rows + k * pack.rows_step;
    float* to = pack.target + k * kTileColumns;
    for (int64_t panel = 0; panel < pack.panels; ++panel, to += pack.panel_step) {
#pragma GCC unroll 16
      for (int v = 0; v < kTileVectors; ++v, from += Vec::kWidth) {
        Vec::Load(from).Store(to + v * Vec::kWidth);
      }
    }
  }
}

// Sums lane by lane, then the lanes in order, then the tail: an order that only `count` decides.
inline float LaneSum(Vec x) {
  alignas(64) float lanes[Vec::kWidth];
  x.Store(lanes);
  float total = 0;
  for (int i = 0; i < Vec::kWidth; ++i) total += lanes[i];
  return total;
}

float Sum(const float* x, int64_t count) noexcept {
  Vec a(0.0F);
  Vec b(0.0F);
  int64_t i = 0;
  for (; i + 2 * Vec::kWidth <= count; i += 2 * Vec::kWidth) {
    a = a + Vec::Load(x + i);
    b = b + Vec::Load(x + i + Vec::kWidth);
  }
  float total = LaneSum(a + b);
  for (; i < count; ++i) total += x[i];
  return total;
}

inline float SquaredDeviations(const float* x, int64_t count, float mean) {
  const Vec center(mean);
  Vec acc(0.0F);
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
    const Vec d = Vec::Load(x + i) - center;
    acc = Fma(d, d, acc);
  }
  float total = LaneSum(acc);
  for (; i < count; ++i) total += (x[i] - mean) * (x[i] - mean);
  return total;
}

inline float LargestOf(const float* x, int64_t count) {
  float largest = x[0];
  int64_t i = 0;
  if (count >= 2 * Vec::kWidth) {
    Vec top = Vec::Load(x);
    for (i = Vec::kWidth; i + Vec::kWidth <= count; i += Vec::kWidth) {
      top = Max(Vec::Load(x + i), top);
    }
    float lanes[Vec::kWidth];
    top.Store(lanes);
    for (const float lane : lanes) largest = lane > largest ? lane : largest;
  }
  for (; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

void Softmax(const float* x, float* y, int64_t count) noexcept {
  const Vec top(LargestOf(x, count));
  Vec acc(0.0F);
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
    const Vec e = Exp(Vec::Load(x + i) - top);
    e.Store(y + i);
    acc = acc + e;
  }
  float total = LaneSum(acc);
  if (i < count) {
    Exp(Vec::LoadFirst(x + i, count - i) - top).StoreFirst(y + i, count - i);
    for (; i < count; ++i) total += y[i];
  }
  const float inverse = 1.0F / total;
  for (i = 0; i + Vec::kWidth <= count; i += Vec::kWidth) {
    (Vec::Load(y + i) * Vec(inverse)).Store(y + i);
  }
  for (; i < count; ++i) y[i] *= inverse;
}

void ScaleShift(const float* x, float* y, int64_t count, float scale, float shift) noexcept {
  const Vec s(scale);
  const Vec t(shift);
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) Fma(Vec::Load(x + i), s, t).Store(y + i);
  if (i < count) Fma(Vec::LoadFirst(x + i, count - i), s, t).StoreFirst(y + i, count - i);
}

void MultiplyAdd(const float* scale, const float* shift, float* y, int64_t count) noexcept {
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
    const Vec t = shift == nullptr ? Vec(0.0F) : Vec::Load(shift + i);
    Fma(Vec::Load(y + i), Vec::Load(scale + i), t).Store(y + i);
  }
  for (; i < count; ++i) y[i] = y[i] * scale[i] + (shift == nullptr ? 0.0F : shift[i]);
}

void Normalize(const float* x, float* y, int64_t count, float epsilon,
               float* mean_inverse) noexcept {
  const float n = static_cast<float>(count);
  const float mean = Sum(x, count) / n;
  const float inverse = 1.0F / __builtin_sqrtf(SquaredDeviations(x, count, mean) / n + epsilon);
  const Vec center(mean);
  const Vec factor(inverse);
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
    ((Vec::Load(x + i) - center) * factor).Store(y + i);
  }
  for (; i < count; ++i) y[i] = (x[i] - mean) * inverse;
  mean_inverse[0] = mean;
  mean_inverse[1] = inverse;
}

void Axpy(const float* x, float factor, float* y, int64_t count) noexcept {
  const Vec f(factor);
  int64_t i = 0;
  for (; i + Vec::kWidth <= count; i += Vec::kWidth) {
    Fma(Vec::Load(x + i), f, Vec::Load(y + i)).Store(y + i);
  }
  for (; i < count; ++i) y[i] += x[i] * factor;
}

#include "kernels/f32_depthwise_body.h"
#include "kernels/f32_sparse_body.h"
#include "kernels/f32_winograd_body.h"

constexpr bool kOffersWinograd = Vec::kWidth > 1;  // the oracle computes by the definition

constexpr F32Kernels kTable = {
    .tile_rows = 6,
    .tile_columns = kTileColumns,
    .lanes = Vec::kWidth,
    .sparse_columns = kSparseVectors * Vec::kWidth,
    .packed_floats = (kWideL2 ? 128 : 64) * 1024,
    .reads_images = kReadsImages,
    .gemm_tile = GemmTile,
    .sparse_rows = SparseRows,
    .activate = Activate,
    .tap_sum_rows = TapSumRows,
    .tap_max_rows = TapMaxRows,
    .depthwise = Depthwise,
    .transpose = TransposeSums,
    .pack_columns = PackColumns,
    .pack_rows = kTilesPack ? nullptr : PackRows,
    .pad_rows = PadRows,
    .winograd_input = kOffersWinograd ? WinogradInput : nullptr,
    .winograd_output = kOffersWinograd ? WinogradOutput : nullptr,
    .softmax = Softmax,
    .normalize = Normalize,
    .scale_shift = ScaleShift,
    .multiply_add = MultiplyAdd,
    .sum = Sum,
    .axpy = Axpy,
};
