// What one weighted node sees on the calibration data, as matrices for least squares.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "passes/layer_columns.h"
#include "passes/layer_stream.h"
#include "passes/weights.h"

namespace pared {

// Of one part. x: inputs in the edited model; y = w x0: what the original weights make of the
// original inputs, and what the edited model's skip connection lost. With `is_centered` the means
// are taken out first: a bias can make up for them.
struct LayerStatistics {
  int64_t k = 0, rows = 0, count = 0;
  int64_t left_out = 0;          // columns that are not finite, besides `count`
  std::vector<float> h;          // sum of x x^T, [k][k]
  std::vector<float> g;          // sum of y x^T, [rows][k]
  std::vector<double> y_square;  // sum of y^2 of each row
  std::vector<double> x_mean, y_mean;
};

// Why no statistics can be taken at this site; empty: they can.
std::string WhyNoStatistics(const WeightSite& site);

// Calls `visit(at, stored)` for every weight of one part: its place in [rows][part.size()], and in
// the stored tensor.
template <class Visit>
void ForEachWeight(const WeightSite& site, const InputPart& part, Visit visit) {
  const MatrixLayout& layout = site.layout;
  for (int64_t row = 0; row < layout.rows; ++row) {
    for (int64_t k = part.begin; k < part.end; ++k) {
      visit(static_cast<size_t>(row * part.size() + k - part.begin),
            static_cast<size_t>(site.StoredIndex(layout.Index(part.group, row, k))));
    }
  }
}

// The weight of one part as [rows][part.size()].
std::vector<float> PartWeight(const WeightSite& site, const InputPart& part);

struct StatisticsRequest {
  const WeightSite* site = nullptr;
  InputPart part;
  bool is_centered = false;
  int64_t folds = 1, fold = 0;  // only every folds-th sample, from `fold` on
  std::string skip = {};        // as ColumnsRequest has it
};
// nullopt: the layer's input is constant or not float.
std::optional<LayerStatistics> TakeStatistics(const LayerStream& stream,
                                              const StatisticsRequest& request);

// y follows from columns.original and skip_loss, x is columns.edited.
LayerStatistics StatisticsOf(LayerColumns columns, const std::vector<float>& weight,
                             bool is_centered);

// Those of some rows only.
LayerStatistics RowsOf(const LayerStatistics& statistics, const std::vector<int64_t>& rows);

// `rows` of a matrix [..][k].
template <class T>
std::vector<T> RowsOf(const std::vector<T>& matrix, int64_t k, const std::vector<int64_t>& rows) {
  std::vector<T> part;
  for (const int64_t row : rows) {
    const auto begin = matrix.begin() + row * k;
    part.insert(part.end(), begin, begin + k);
  }
  return part;
}

// At most `most` of `rows` rows, evenly from all.
std::vector<int64_t> SpreadRows(int64_t rows, int64_t most);

// The statistics of the samples of both, each about its own means (Chan, Golub and LeVeque,
// Updating formulae and a pairwise algorithm for computing sample variances, 1979).
LayerStatistics Merge(const LayerStatistics& a, const LayerStatistics& b);

// 200 at most, and where there is no noise or no signal; -200 where the noise is not finite.
double SqnrDb(double signal, double noise);

}  // namespace pared
