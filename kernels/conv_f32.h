// Single-precision convolution of constant weights over 1, 2 or 3 spatial dimensions (fewer are
// led by ones).
//
// 3 x 3 kernels of stride 1 go by kernels/winograd_f32 where that is fastest; of all others, where
// padding or a horizontal stride is asked for, the input is first copied into a buffer with
// the padding written out and the columns sorted by their remainder modulo the stride:
//
//   [channel][depth][row][x mod stride][x div stride]
//
// so that under every tap the inputs of neighbouring outputs are neighbours. Then
//   - weights of mostly zeros are multiplied by kernels/sparse_f32 where that is faster;
//   - a depthwise convolution of few channels, or of very wide rows, sums its taps row by row,
//     straight from that buffer; any other is transposed so that channels fill the vectors;
//   - any other packs panels of columns (im2col of one tile group and one block of k, in cache),
//     or lets their first tiles pack them where that is a plain copy, and multiplies them by the
//     packed weights. Pixels fill the vectors, or outputs where so few
//     pixels would leave lanes idle (7 x 7 images): the sums are the same, bit for bit.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "kernels/aligned.h"
#include "kernels/f32.h"
#include "kernels/gemm_f32.h"
#include "kernels/sparse_f32.h"
#include "kernels/winograd_f32.h"

namespace pared {

using Extent3 = std::array<int64_t, 3>;  // depth, height, width

struct ConvF32Options {
  int64_t channels = 0, outputs = 0, groups = 1;  // of all groups together
  Extent3 kernel = {1, 1, 1}, stride = {1, 1, 1}, dilation = {1, 1, 1};
  ActivationF32 activation{};
};

// Weights as one of the ways of computing takes them.
struct ConvWeightsF32 {
  AlignedBuffer<float> dense{};
  SparseLhsF32 sparse{};  // of all groups' rows
};

// What follows from one input shape.
struct ConvF32Plan {
  Extent3 in = {1, 1, 1}, out = {1, 1, 1}, pad = {0, 0, 0};
  Extent3 padded = {1, 1, 1};          // extent that the taps reach, at least `in` + pad
  int64_t phase_floats = 0;            // of one row and one remainder
  int64_t row_floats = 0;              // of all remainders
  int64_t plane_floats = 0;            // of a channel
  bool pads = false;                   // whether the buffer is needed
  std::vector<int64_t> tap_offsets{};  // by (channel of a group, tap)
  int64_t pixels = 0;                  // of an output channel
  int64_t units = 0;                   // independent pieces of work
  int64_t column_groups = 0, group_panels = 0, row_splits = 1;
  bool by_outputs = false;             // outputs fill the vectors
  std::vector<int64_t> tile_begins{};  // the same: pixels, and the end
  int64_t packed_floats = 0;           // the same: of the scratch
  bool reads_image = false;            // panels are not packed
  bool is_direct = false;  // rows of the product's right operand lie in the image as they are
  std::shared_ptr<const ConvWeightsF32> weights{};  // packed; null: depthwise
  bool is_sparse = false;                           // by column groups and row splits as tiles are
  std::optional<WinogradPlanF32> winograd{};  // set: by Winograd's algorithm, from the image itself
  int64_t band_rows = 0;       // depthwise by lanes: output rows at a time; 0: row by row
  int64_t row_vectors = 0;     // the same: of a padded row
  int64_t buffer_floats = 0;   // padded input of all channels; 0: none
  int64_t scratch_floats = 0;  // of one worker
};

class ConvF32 {
 public:
  // weights: [outputs][channels / groups][kernel]; bias: [outputs] or empty.
  ConvF32(const ConvF32Options& options, std::shared_ptr<const float> weights,
          std::span<const float> bias, const F32Kernels& kernels);

  // `threads` only decides how finely the work is cut. Packs the weights where no plan before asked
  // for their layout.
  ConvF32Plan Plan(const Extent3& in, const Extent3& out, const Extent3& pad,
                   int64_t threads) const;
  // Copies channels [begin, end) of one image into the buffer.
  void Pad(const ConvF32Plan& plan, const float* x, int64_t begin, int64_t end,
           float* buffer) const noexcept;
  // x: one image where the plan has no buffer or is depthwise, else the buffer. `addend`: laid out
  // as y, or null.
  void RunUnits(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                int64_t unit_begin, int64_t unit_end, float* scratch) const noexcept;
  bool depthwise() const { return depthwise_; }

 private:
  void PackLanes();
  void PlanLanes(ConvF32Plan& plan) const;
  void RunLanes(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                int64_t unit, float* scratch) const noexcept;
  void RunDepthwise(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                    int64_t output, float* scratch) const noexcept;
  void RunTiles(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                int64_t unit, float* scratch) const noexcept;
  void RunOutputs(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                  int64_t unit, float* scratch) const noexcept;
  void FinishOutputs(const ConvF32Plan& plan, const float* sums, int64_t output, float* y,
                     const float* addend) const noexcept;
  // Multiply-adds of whole vectors that each way is expected to take, of one group.
  double DenseCost(const ConvF32Plan& plan) const;
  bool PrefersSparse(const ConvF32Plan& plan) const;
  void PlanSparse(ConvF32Plan& plan, int64_t threads) const;
  struct SparseUnit;
  SparseUnit SparseUnitAt(const ConvF32Plan& plan, int64_t unit) const;
  void PackSparsePanels(const ConvF32Plan& plan, const PackColumnsF32& part, const SparseUnit& unit,
                        int64_t panel_rows) const noexcept;
  void RunSparse(const ConvF32Plan& plan, const float* x, float* y, const float* addend,
                 int64_t unit, float* scratch) const noexcept;
  // The same where inputs are not finite, by all weights.
  void RunDenseUnit(const ConvF32Plan& plan, const PackColumnsF32& columns, const SparseUnit& unit,
                    float* y, const float* addend) const noexcept;
  // A group's product from an output's pixel on, but for its operands.
  GemmF32 GroupProduct(const ConvF32Plan& plan, int64_t group, int64_t pixel, float* y,
                       const float* addend) const noexcept;
  // Into pieces of column groups, and those into rows where they are too few.
  void CutUnits(ConvF32Plan& plan, int64_t threads) const;
  void PlanTiles(ConvF32Plan& plan, int64_t threads) const;
  void PlanOutputs(ConvF32Plan& plan, int64_t threads) const;
  void PackPixels(const ConvF32Plan& plan, const PackColumnsF32& part, int64_t first,
                  int64_t count) const noexcept;
  void PackPixelPanels(const ConvF32Plan& plan, const PackColumnsF32& part) const noexcept;
  void PackPixelTiles(const ConvF32Plan& plan, const PackColumnsF32& part) const noexcept;
  // Of packed weights: as the left operand of a product, as the right one, for Winograd, as a
  // sparse left operand.
  enum Layout { kRows, kPanels, kWinograd, kSparse, kLayouts };
  std::optional<WinogradPlanF32> PlanWinogradOf(const ConvF32Plan& plan, int64_t threads) const;
  std::shared_ptr<const ConvWeightsF32> WeightsFor(Layout layout) const;
  ConvWeightsF32 Pack(Layout layout) const;
  int64_t group_floats(bool by_outputs) const;
  void PadChannel(const ConvF32Plan& plan, const float* x, float* target) const noexcept;

  ConvF32Options options_;
  const F32Kernels& kernels_;
  bool depthwise_ = false;
  int64_t k_ = 0;                         // sums of one output
  int64_t nonzeros_ = 0;                  // weights
  std::shared_ptr<const float> weights_;  // as given
  // By group. Only the layout that the last plan asked for is kept, until plans turn out to
  // alternate.
  mutable std::mutex layouts_mutex_;
  mutable std::array<std::shared_ptr<const ConvWeightsF32>, kLayouts> layouts_;
  mutable int packs_ = 0;
  std::vector<float> lanes_;  // depthwise by lanes: [vector of channels][taps and bias][lanes]
  std::vector<float> bias_;   // empty: none
};

}  // namespace pared
