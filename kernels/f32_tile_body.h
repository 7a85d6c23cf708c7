// Part of kernels/f32_body.h: the tile of the GEMM.

// Register tile of the GEMM: kRows x (4 vectors). On AVX-512: 24 accumulators, 4 of B, 1 broadcast;
// 10 loads serve 24 multiply-adds.
constexpr int kTileVectors = kTileColumns / Vec::kWidth;
constexpr bool kTilesPack = kTileColumns >= 64;
constexpr bool kWideL2 = kTileColumns >= 64;  // CPUs with AVX-512 have 1 MB, others 512 KB
constexpr bool kReadsImages = kTileVectors == 2;

// Adds what stands after the sums and stores the tile: step by step, so that the sums stay in
// registers. Only the last vector of a row can be partial.
template <int kRows, int kVectors, bool kWhole>
[[gnu::always_inline]] inline void FinishTile(const GemmTileF32& t, Vec (&acc)[kRows][kVectors]) {
  const auto for_each = [&](auto change) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) change(r, v, acc[r][v]);
    }
  };
  const int64_t left = t.columns - (kVectors - 1) * Vec::kWidth;
  const auto load = [&](const float* row, int v) __attribute__((always_inline)) {
    const float* from = row + v * Vec::kWidth;
    return kWhole || v < kVectors - 1 ? Vec::Load(from) : Vec::LoadFirst(from, left);
  };
  const auto add = [&](const float* rows) __attribute__((always_inline)) {
    for_each([&](int r, int v, Vec& x)
                 __attribute__((always_inline)) { x = x + load(rows + r * t.c_row, v); });
  };
  if (t.accumulate) add(t.c);
  if (t.finish) {
    if (t.row_bias != nullptr) {
      for_each([&](int r, int, Vec& x)
                   __attribute__((always_inline)) { x = x + Vec(t.row_bias[r]); });
    }
    if (t.column_bias != nullptr) {
      for_each([&](int, int v, Vec& x)
                   __attribute__((always_inline)) { x = x + load(t.column_bias, v); });
    }
    if (t.addend != nullptr) add(t.addend);
    if (t.activation.kind == ActivationKind::kClamp) {
      const Vec low(t.activation.alpha);
      const Vec high(t.activation.beta);
      for_each([&](int, int, Vec& x) __attribute__((always_inline)) { x = Clamp(x, low, high); });
    }
  }
  for_each([&](int r, int v, const Vec& x) __attribute__((always_inline)) {
    float* to = t.c + r * t.c_row + v * Vec::kWidth;
    if (kWhole || v < kVectors - 1) {
      x.Store(to);
    } else {
      x.StoreFirst(to, left);
    }
  });
}

// Rows of C and of the addend are far apart: they are asked for while the sums are made.
inline void PrefetchTarget(const GemmTileF32& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t at = 0; at < t.columns; at += 16) {
      __builtin_prefetch(t.c + r * t.c_row + at, 1);
      if (t.addend != nullptr && t.finish) __builtin_prefetch(t.addend + r * t.c_row + at);
    }
  }
}

// What a tile does beside its sums, or in place of reading panels.
enum class Beside { kNothing, kPack, kFetchAhead, kReadImage };

template <int kRows, int kVectors, Beside kBeside = Beside::kNothing>
void TileOf(const GemmTileF32& t) {
  Vec acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) acc[r][v] = Vec(0.0F);
  }
  const float* a = t.a;
  const float* b = kBeside == Beside::kReadImage ? t.b_vectors[0] : t.b;
  const float* second = t.b_vectors[1];
  const int64_t a_row = t.a_row;
  float* packed = t.packed;
  const float* ahead = t.ahead;
  if (kRows > 1) PrefetchTarget(t);
  for (int64_t k = 0; k < t.k; ++k) {
    Vec row[kVectors];
    // B comes from the L2 cache, row after row: eight rows are some 200 cycles.
    if (kRows > 2 && kBeside != Beside::kReadImage) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        __builtin_prefetch(b + 8 * (kBeside == Beside::kPack ? t.b_step : kTileColumns) +
                           v * Vec::kWidth);
      }
    }
    if (kBeside == Beside::kFetchAhead) {
      __builtin_prefetch(ahead, 0, 2);
      ahead += t.ahead_step;
    }
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      if constexpr (kBeside == Beside::kReadImage) {
        row[v] = Vec::Load(v == 0 ? b + t.b_offsets[k] : second + t.b_offsets[k]);
      } else {
        row[v] = Vec::Load(b + v * Vec::kWidth);
      }
    }
    if (kBeside == Beside::kPack) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) row[v].Store(packed + v * Vec::kWidth);
      packed += kTileColumns;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vec left(a[r * a_row]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[r][v] = Fma(left, row[v], acc[r][v]);
    }
    a += t.a_step;
    if (kBeside != Beside::kReadImage) b += t.b_step;
  }
  if (t.columns == kVectors * Vec::kWidth) {
    FinishTile<kRows, kVectors, true>(t, acc);
  } else {
    FinishTile<kRows, kVectors, false>(t, acc);
  }
}

template <int kVectors, Beside kBeside = Beside::kNothing>
void TileRows(const GemmTileF32& t) {
  switch (t.rows) {
    case 1:
      return TileOf<1, kVectors, kBeside>(t);
    case 2:
      return TileOf<2, kVectors, kBeside>(t);
    case 3:
      return TileOf<3, kVectors, kBeside>(t);
    case 4:
      return TileOf<4, kVectors, kBeside>(t);
    case 5:
      return TileOf<5, kVectors, kBeside>(t);
    default:
      return TileOf<6, kVectors, kBeside>(t);
  }
}

void GemmTile(const GemmTileF32& t) noexcept {
  const int64_t vectors = (t.columns + Vec::kWidth - 1) / Vec::kWidth;
  if (kTilesPack && t.packed != nullptr) {
    TileRows<kTileVectors, Beside::kPack>(t);
  } else if (kReadsImages && t.b_offsets != nullptr) {
    TileRows<kTileVectors, kReadsImages ? Beside::kReadImage : Beside::kNothing>(t);
  } else if (t.ahead != nullptr) {
    TileRows<kTileVectors, Beside::kFetchAhead>(t);
  } else if (vectors == 1) {
    TileRows<1>(t);
  } else if (kTileVectors >= 4 && vectors == 2) {
    TileRows<2>(t);
  } else if (kTileVectors >= 4 && vectors == 3) {
    TileRows<3>(t);
  } else {
    TileRows<kTileVectors>(t);
  }
  if (!t.finish || t.activation.kind <= ActivationKind::kClamp) return;
  ActivateRows(t.activation, {t.c, t.rows, t.columns, t.c_row});
}
