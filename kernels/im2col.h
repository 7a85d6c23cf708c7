// Convolution as GEMM: gathers the inputs of 64 output pixels into a planar tile [k][64], k in the
// order of ONNX weights (channel, kernel row, kernel column).
//
// Two steps. Pad* copies the channels of one image, from whatever layout they are in, to a padded
// image of contiguous rows; GatherTile then needs no bounds checks:
//
//   padded image [channel][padded_height][padded_width]:   z z z z z z     z: the zero point of x
//                                                          z a b c d z
//                                                          z e f g h z  ...
//
// A 1x1 convolution of stride 1 without padding needs neither: the planar image is the operand.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu.h"
#include "kernels/image_avx512.h"

namespace pared {

// The shape of a convolution or pooling over the channels of one group. Every out_* pixel reads
// only inside the padded image.
struct ConvGeometry {
  int64_t channels = 0, height = 0, width = 0;  // of the input
  int64_t kernel_height = 1, kernel_width = 1;
  int64_t stride_y = 1, stride_x = 1;
  int64_t dilation_y = 1, dilation_x = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;

  int64_t out_height() const {
    return (height + pad_top + pad_bottom - dilation_y * (kernel_height - 1) - 1) / stride_y + 1;
  }
  int64_t out_width() const {
    return (width + pad_left + pad_right - dilation_x * (kernel_width - 1) - 1) / stride_x + 1;
  }
  int64_t out_pixels() const { return out_height() * out_width(); }
  int64_t out_tiles() const { return (out_pixels() + 63) / 64; }
  int64_t k() const { return channels * kernel_height * kernel_width; }
  // Whether the operand is the image itself.
  bool is_pointwise() const;
};

class Im2col {
 public:
  Im2col(const ConvGeometry& geometry, Isa isa);

  const ConvGeometry& geometry() const { return geometry_; }

  // Of the padded image, slack for whole vectors included.
  size_t image_bytes() const;
  // Of one gathered tile, with slack: tiles cannot lie end to end.
  size_t tile_bytes() const { return static_cast<size_t>(geometry_.k()) * 64 + 64; }

  // Fills channels [begin, end) of the padded image `image`; calls for different channels may run
  // at once. `x` is [tile][total_channels][64], and channel 0 of the geometry is channel
  // `first_channel` of x.
  struct PlanarSource {
    const uint8_t* x;
    int64_t first_channel, total_channels;
  };
  void PadPlanar(const PlanarSource& source, uint8_t zero_point, int64_t begin, int64_t end,
                 uint8_t* image) const noexcept;
  // The same from row-major [channels][height * width].
  void PadRowMajor(const uint8_t* x, uint8_t zero_point, int64_t begin, int64_t end,
                   uint8_t* image) const noexcept;

  // out: [k][64] and 64 bytes of slack, 64-byte aligned. Columns past the last pixel repeat it.
  void GatherTile(const uint8_t* image, int64_t tile, uint8_t* out) const noexcept;
  // The rows of channels [begin, end) alone: out is [(end - begin) * kernel][64]. Writes nothing
  // else, so that ranges of one tile may run at once.
  void GatherChannels(const uint8_t* image, int64_t tile, int64_t begin, int64_t end,
                      uint8_t* out) const noexcept;

  // A tile where it lies, of a geometry of stride 1: at each kernel position the columns are some
  // of `bytes` from `first` in a channel of the padded image, which may be read to a multiple
  // of 32.
  struct Span {
    int64_t first, bytes;
  };
  Span SpanOf(int64_t tile) const;
  int64_t plane_bytes() const { return padded_height() * padded_width(); }  // of a channel
  // Offset of each kernel position in the padded image.
  std::span<const int64_t> taps() const { return taps_; }
  // Picks the columns of a tile from what was made of its span. out: 64 bytes and 64 of slack.
  void PickColumns(const uint8_t* span, int64_t tile, uint8_t* out) const noexcept;

 private:
  // Columns of a tile whose inputs lie `stride_x` apart in one row of the padded image.
  struct Run {
    int64_t column, offset, count;  // offset: of the first one's input, at kernel position (0, 0)
  };
  // How the columns of a tile lie in the padded image: runs, and the same as at most 64 bytes
  // picked from each of few windows of 128 bytes, which is what two byte permutes a window do.
  struct TilePlan {
    std::vector<Run> runs;
    int64_t columns = 0;  // that are pixels
    std::vector<GatherWindow> windows;
  };

  TilePlan PlanTile(int64_t tile) const;
  // copy(from, count, to): one run of a channel.
  template <class Copy>
  void GatherRuns(const uint8_t* image, const TilePlan& plan, const Copy& copy, bool is_last,
                  uint8_t* out) const noexcept;
  int64_t padded_height() const;
  int64_t padded_width() const;

  ConvGeometry geometry_;
  bool permutes_;  // the CPU has AVX-512 VBMI, and may use it
  bool masks_;     // AVX-512: copies rows by masked moves
  std::vector<int64_t> taps_;
  std::vector<TilePlan> tiles_;
};

}  // namespace pared
