// Part of kernels/f32_body.h: rows of a sparse left operand by a block of the right one. Each
// nonzero's row of B is read from the L1 cache anew: 64 columns, or 8 vectors of fewer, take nine
// loads for eight multiply-adds, and fit 128 rows of B into 32 KB.
constexpr int kSparseVectors = 64 / Vec::kWidth < 8 ? 64 / Vec::kWidth : 8;

template <int kVectors>
void SparseRowsOf(const SparseRowsF32& s) {
  constexpr int64_t kPanelFloats = kSparseBlockK * kTileColumns;
  GemmTileF32 t = s.tile;
  float* sums = s.sums;
  for (int64_t r = 0; r < s.rows; ++r, sums += kSparseVectors * Vec::kWidth) {
    Vec acc[1][kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      acc[0][v] = s.begins_sums ? Vec(0.0F) : Vec::Load(sums + v * Vec::kWidth);
    }
    const int64_t end = s.begins[r + 1];
    for (int64_t i = s.begins[r]; i < end; ++i) {
      const float* b = s.panels + int64_t{s.k[i]} * kTileColumns;
      const Vec value(s.values[i]);
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        const Vec right =
            Vec::Load(b + v / kTileVectors * kPanelFloats + v % kTileVectors * Vec::kWidth);
        acc[0][v] = Fma(value, right, acc[0][v]);
      }
    }
    if (!s.ends_sums) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) acc[0][v].Store(sums + v * Vec::kWidth);
      continue;
    }
    if (t.columns == kVectors * Vec::kWidth) {
      FinishTile<1, kVectors, true>(t, acc);
    } else {
      FinishTile<1, kVectors, false>(t, acc);
    }
    t.c += t.c_row;
    if (t.row_bias != nullptr) ++t.row_bias;
    if (t.addend != nullptr) t.addend += t.c_row;
  }
}

template <int kVectors>
void SparseRowsFrom(const SparseRowsF32& s, int64_t vectors) {
  if constexpr (kVectors > 1) {
    if (vectors < kVectors) return SparseRowsFrom<kVectors - 1>(s, vectors);
  }
  SparseRowsOf<kVectors>(s);
}

void SparseRows(const SparseRowsF32& s) noexcept {
  const GemmTileF32& t = s.tile;
  SparseRowsFrom<kSparseVectors>(s, (t.columns + Vec::kWidth - 1) / Vec::kWidth);
  if (!s.ends_sums || !t.finish || t.activation.kind <= ActivationKind::kClamp) return;
  ActivateRows(t.activation, {t.c, s.rows, t.columns, t.c_row});
}
