// Part of kernels/f32_body.h: the tile of the GEMM.

// Register tile of the GEMM: kRows x (4 vectors). On AVX-512: 24 accumulators, 4 of B, 1 broadcast;
// 10 loads serve 24 multiply-adds.
constexpr int kTileVectors = kTileColumns / Vec::kWidth;

// Adds what stands after the sums and stores one row of the tile.
template <int kVectors>
[[gnu::always_inline]] inline void FinishRow(const GemmTileF32& t, int64_t r,
                                             Vec (&acc)[kVectors]) {
  float* c = t.c + r * t.c_row;
  for (int v = 0; v < kVectors; ++v) {
    const int64_t at = v * Vec::kWidth;
    const int64_t left = t.columns - at;
    const bool whole = left >= Vec::kWidth;
    Vec x = acc[v];
    const auto load = [&](const float* p) {
      return whole ? Vec::Load(p + at) : Vec::LoadFirst(p + at, left);
    };
    if (t.accumulate) x = x + load(c);
    if (t.finish) {
      if (t.row_bias != nullptr) x = x + Vec(t.row_bias[r]);
      if (t.column_bias != nullptr) x = x + load(t.column_bias);
      if (t.addend != nullptr) x = x + load(t.addend + r * t.c_row);
      if (t.activation.kind == ActivationKind::kClamp) {
        x = Clamp(x, Vec(t.activation.alpha), Vec(t.activation.beta));
      }
    }
    if (whole) {
      x.Store(c + at);
    } else {
      x.StoreFirst(c + at, left);
    }
  }
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

// What a tile does beside its sums.
enum class Beside { kNothing, kPack, kFetchAhead };

template <int kRows, int kVectors, Beside kBeside = Beside::kNothing>
void TileOf(const GemmTileF32& t) {
  Vec acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) acc[r][v] = Vec(0.0F);
  }
  const float* a = t.a;
  const float* b = t.b;
  const int64_t a_row = t.a_row;
  float* packed = t.packed;
  const float* ahead = t.ahead;
  if (kRows > 1) PrefetchTarget(t);
  for (int64_t k = 0; k < t.k; ++k) {
    Vec row[kVectors];
    // B comes from the L2 cache, row after row: eight rows are some 200 cycles.
    if (kRows > 2) {
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
    for (int v = 0; v < kVectors; ++v) row[v] = Vec::Load(b + v * Vec::kWidth);
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
    b += t.b_step;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) FinishRow<kVectors>(t, r, acc[r]);
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
  if (t.packed != nullptr) {
    TileRows<kTileVectors, Beside::kPack>(t);
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
  for (int64_t r = 0; r < t.rows; ++r) Activate(t.activation, t.c + r * t.c_row, t.columns);
}
