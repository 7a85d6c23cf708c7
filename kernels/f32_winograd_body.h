// Part of kernels/f32_body.h: the transforms of a Winograd convolution, F(4 x 4, 3 x 3), whose
// points are 0, +-3/4, +-3/2 and infinity: kernels/winograd_f32.h says why. Lanes are neighbouring
// tiles.

// The points a and b, and what of them the matrices hold; all exact.
constexpr float kPointA = 0.75F;
constexpr float kPointB = 1.5F;
constexpr float kSquareA = kPointA * kPointA;
constexpr float kSquareB = kPointB * kPointB;

// v = B^T d: row i of B^T holds the coefficients of the product of (x - q) over all points q but
// the i-th, the last one's those of all five.
[[gnu::always_inline]] inline void TransformInputs(const Vec (&d)[6], Vec (&v)[6]) {
  const Vec product(kSquareA * kSquareB);
  const Vec sum(-(kSquareA + kSquareB));
  const Vec even_a = Fma(d[2], Vec(-kSquareB), d[4]);
  const Vec odd_a = Fma(d[1], Vec(-kSquareB), d[3]);
  const Vec even_b = Fma(d[2], Vec(-kSquareA), d[4]);
  const Vec odd_b = Fma(d[1], Vec(-kSquareA), d[3]);
  v[0] = Fma(d[0], product, Fma(d[2], sum, d[4]));
  v[1] = Fma(odd_a, Vec(kPointA), even_a);
  v[2] = Fma(odd_a, Vec(-kPointA), even_a);
  v[3] = Fma(odd_b, Vec(kPointB), even_b);
  v[4] = Fma(odd_b, Vec(-kPointB), even_b);
  v[5] = Fma(d[1], product, Fma(d[3], sum, d[5]));
}

// y = A^T m: row i of A^T holds the i-th powers of the points.
[[gnu::always_inline]] inline void TransformSums(const Vec (&m)[6], Vec (&y)[4]) {
  const Vec even_a = m[1] + m[2];
  const Vec odd_a = m[1] - m[2];
  const Vec even_b = m[3] + m[4];
  const Vec odd_b = m[3] - m[4];
  y[0] = m[0] + even_a + even_b;
  y[1] = Fma(odd_b, Vec(kPointB), odd_a * Vec(kPointA));
  y[2] = Fma(even_b, Vec(kSquareB), even_a * Vec(kSquareA));
  y[3] = Fma(odd_b, Vec(kSquareB * kPointB), Fma(odd_a, Vec(kSquareA * kPointA), m[5]));
}

// Transforms six rows of the image column by column, from column `first` on, to `rows` of `step`
// floats; what lies outside the image is zero.
inline void TransformColumns(const WinogradInputF32& t, int64_t first, float* rows, int64_t step) {
  const int64_t left = first < 0 ? -first : 0;
  const int64_t begin = first + left;
  const int64_t end = first + step < t.width ? first + step : t.width;
  const int64_t inside = end > begin ? end - begin : 0;
  for (int i = 0; i < 6; ++i) {
    float* row = rows + i * step;
    for (int64_t x = 0; x < left && x < step; ++x) row[x] = 0.0F;
    for (int64_t x = left + inside; x < step; ++x) row[x] = 0.0F;
  }
  const int64_t top = 4 * t.tile_row - t.pad_y;
  for (int64_t x = 0; x < inside; x += Vec::kWidth) {
    const int64_t count = inside - x;
    Vec d[6];
    Vec v[6];
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      const float* from = t.x + (top + i) * t.width + begin + x;
      const bool is_inside = top + i >= 0 && top + i < t.height;
      d[i] = !is_inside             ? Vec(0.0F)
             : count >= Vec::kWidth ? Vec::Load(from)
                                    : Vec::LoadFirst(from, count);
    }
    TransformInputs(d, v);
#pragma GCC unroll 6
    for (int i = 0; i < 6; ++i) {
      float* to = rows + i * step + left + x;
      count >= Vec::kWidth ? v[i].Store(to) : v[i].StoreFirst(to, count);
    }
  }
}

void WinogradInput(const WinogradInputF32& t) noexcept {
  constexpr int64_t kWidth = Vec::kWidth;
  const int64_t groups = (t.tiles + kWidth) / kWidth;  // of tiles and the one that follows them
  const int64_t step = groups * 4 * kWidth;
  float* rows = t.scratch;
  float* sorted = t.scratch + 6 * step;  // [row][column modulo 4][tile]
  TransformColumns(t, 4 * t.first_tile - t.pad_x, rows, step);
  for (int64_t i = 0; i < 6 * groups; ++i) {
    Vec columns[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) columns[j] = Vec::Load(rows + (4 * i + j) * kWidth);
    Deinterleave(columns);
    float* to = sorted + i / groups * step + i % groups * kWidth;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) columns[j].Store(to + j * groups * kWidth);
  }
  for (int64_t tile = 0; tile < t.tiles; tile += kWidth) {
    for (int i = 0; i < 6; ++i) {
      Vec d[6];
      Vec v[6];
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) {
        d[j] = Vec::Load(sorted + i * step + j % 4 * groups * kWidth + tile + j / 4);
      }
      TransformInputs(d, v);
#pragma GCC unroll 6
      for (int j = 0; j < 6; ++j) v[j].Store(t.v + (6 * i + j) * t.plane + tile);
    }
  }
}

// One row of outputs: vectors of columns, the last of which may be partial.
template <bool kAdds>
[[gnu::always_inline]] inline void StoreOutputs(const WinogradOutputF32& t, Vec (&y)[4],
                                                int64_t row, int64_t column) {
  const Vec bias(t.bias);
  const Vec low(t.low);
  const Vec high(t.high);
  const int64_t at = row * t.y_step + column;
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const int64_t left = t.columns - column - j * Vec::kWidth;
    const int64_t to = at + j * Vec::kWidth;
    if (left <= 0) return;
    Vec sum = y[j] + bias;
    if (left >= Vec::kWidth) {
      if (kAdds) sum = sum + Vec::Load(t.addend + to);
      Clamp(sum, low, high).Store(t.y + to);
    } else {
      if (kAdds) sum = sum + Vec::LoadFirst(t.addend + to, left);
      Clamp(sum, low, high).StoreFirst(t.y + to, left);
    }
  }
}

void WinogradOutput(const WinogradOutputF32& t) noexcept {
  for (int64_t tile = 0; tile < t.tiles; tile += Vec::kWidth) {
    Vec half[4][6];  // transformed along the rows
#pragma GCC unroll 6
    for (int j = 0; j < 6; ++j) {
      Vec m[6];
      Vec y[4];
#pragma GCC unroll 6
      for (int i = 0; i < 6; ++i) m[i] = Vec::Load(t.m + (6 * i + j) * t.plane + tile);
      TransformSums(m, y);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) half[i][j] = y[i];
    }
    for (int64_t row = 0; row < t.rows; ++row) {
      Vec y[4];
      TransformSums(half[row], y);
      Interleave(y);
      if (t.addend != nullptr) {
        StoreOutputs<true>(t, y, row, 4 * tile);
      } else {
        StoreOutputs<false>(t, y, row, 4 * tile);
      }
    }
  }
}
