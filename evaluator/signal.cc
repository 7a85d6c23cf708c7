#include "evaluator/signal.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "evaluator/half_floats.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

using Complex = std::complex<double>;
using Inputs = std::span<const Tensor* const>;

// The discrete Fourier transform of any length, by decimation in time over its prime factors:
// n * (sum of the factors) products. Immutable; lines may be transformed by several threads.
class Fourier {
 public:
  Fourier(int64_t length, bool inverse) : scale_(inverse ? 1.0 / static_cast<double>(length) : 1) {
    const double turn = (inverse ? 2 : -2) * std::numbers::pi / static_cast<double>(length);
    for (int64_t i = 0; i < length; ++i)
      roots_.push_back(std::polar(1.0, turn * static_cast<double>(i)));
    for (int64_t rest = length, factor = 2; rest > 1; rest /= factor) {
      while (rest % factor != 0) factor = factor * factor > rest ? rest : factor + 1;
      factors_.push_back(factor);
    }
  }

  int64_t length() const { return static_cast<int64_t>(roots_.size()); }

  // in, out: [length]
  void Run(const Complex* in, Complex* out) const {
    const auto widest = std::ranges::max_element(factors_);
    std::vector<Complex> terms(widest == factors_.end() ? 1 : Sz(*widest));
    Transform({in, 1, 0}, out, terms);
    for (int64_t i = 0; i < length(); ++i) out[i] *= scale_;
  }

 private:
  // Every stride-th element from `in` on; factors from `level` on are left.
  struct Part {
    const Complex* in;
    int64_t stride;
    size_t level;
  };

  void Transform(const Part& part, Complex* out, std::vector<Complex>& terms) const {
    if (part.level == factors_.size()) {
      *out = *part.in;
      return;
    }
    const int64_t factor = factors_[part.level];
    const int64_t inner = length() / part.stride / factor;
    for (int64_t r = 0; r < factor; ++r) {
      Transform({part.in + r * part.stride, part.stride * factor, part.level + 1}, out + r * inner,
                terms);
    }
    const int64_t turn = length() / factor;
    for (int64_t k = 0; k < inner; ++k) {
      for (int64_t r = 0; r < factor; ++r) {
        terms[Sz(r)] = out[r * inner + k] * roots_[Sz(r * k * part.stride % length())];
      }
      for (int64_t q = 0; q < factor; ++q) {
        Complex sum = terms[0];
        for (int64_t r = 1; r < factor; ++r) {
          sum += terms[Sz(r)] * roots_[Sz(r * q % factor * turn)];
        }
        out[q * inner + k] = sum;
      }
    }
  }

  std::vector<Complex> roots_;
  std::vector<int64_t> factors_;
  double scale_;
};

// One number, of whatever shape.
int64_t IntegerOf(const Tensor& tensor, const std::string& what, const std::string& label) {
  const std::vector<int64_t> values = IntegersOf(tensor, label);
  if (values.size() != 1) RefuseNode(what + " must be one integer", label);
  return values[0];
}

double FloatOf(const Tensor& tensor, const std::string& what, const std::string& label) {
  if (tensor.count() != 1) RefuseNode(what + " must be one number", label);
  double value = 0;
  DispatchFloat(tensor.dtype(), label,
                [&]<class T>() { value = static_cast<double>(tensor.data<T>()[0]); });
  return value;
}

bool Given(Inputs inputs, size_t i) { return i < inputs.size() && inputs[i] != nullptr; }

// Complex numbers are pairs along the last axis, of length 2; of length 1, only real parts.
int64_t PartsOf(const Tensor& x, const std::string& label) {
  const int64_t parts = x.rank() == 0 ? 0 : x.shape().back();
  if (x.rank() < 2 || parts < 1 || parts > 2) {
    RefuseNode("needs signals whose last axis is 1 (real) or 2 (complex), has shape " +
                   ShapeText(x.shape()),
               label);
  }
  return parts;
}

struct DftNode {
  std::string label;
  bool inverse, onesided;
  int64_t axis;
  bool axis_is_input;

  bool gives_real() const { return inverse && onesided; }
};

template <class T>
Complex Read(const T* x, int64_t parts) {
  return {static_cast<double>(x[0]), parts == 2 ? static_cast<double>(x[1]) : 0.0};
}

template <class T>
void RunDft(const DftNode& dft, int64_t axis, const Fourier& fourier, const Tensor& x, Tensor& out,
            Scratch& scratch) {
  const int64_t parts = x.shape().back(), n = fourier.length();
  const int64_t length = x.shape()[Sz(axis)], inner = Extent(x.shape(), axis + 1, x.rank() - 1);
  const int64_t out_parts = dft.gives_real() ? 1 : 2;
  const int64_t out_length = dft.onesided && !dft.inverse ? n / 2 + 1 : n;
  const int64_t known = std::min(length, dft.gives_real() ? n / 2 + 1 : n);
  Shape shape = x.shape();
  shape[Sz(axis)] = out_length;
  shape.back() = out_parts;
  T* y = scratch.Allocate<T>(out, shape).data();
  const T* data = x.data<T>().data();
  scratch.ParallelFor(Extent(shape, 0, axis) * inner, 1, [&](int64_t begin, int64_t end) {
    std::vector<Complex> line(Sz(n)), spectrum(Sz(n));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t outer = i / inner, column = i % inner;
      std::ranges::fill(line, Complex());
      // A spectrum that was cut after its first half: the others are conjugates. The sign is a
      // factor because gcc 12 miscompiles loops over std::conj at -O2.
      for (int64_t t = 0; t < (dft.gives_real() ? n : known); ++t) {
        const bool is_mirrored = t > n / 2 && dft.gives_real();
        const int64_t source = is_mirrored ? n - t : t;
        if (source >= known) continue;
        const T* from = data + ((outer * length + source) * inner + column) * parts;
        const Complex value = Read(from, parts);
        line[Sz(t)] = {value.real(), value.imag() * (is_mirrored ? -1.0 : 1.0)};
      }
      fourier.Run(line.data(), spectrum.data());
      for (int64_t t = 0; t < out_length; ++t) {
        T* to = y + ((outer * out_length + t) * inner + column) * out_parts;
        to[0] = static_cast<T>(spectrum[Sz(t)].real());
        if (out_parts == 2) to[1] = static_cast<T>(spectrum[Sz(t)].imag());
      }
    }
  });
}

// A table of numbers in the type that the node asks for.
void Emit(const std::vector<double>& values, const Shape& shape, DType dtype, Tensor& out,
          Scratch& scratch, const std::string& label) {
  DispatchNumber(IsHalfFloat(dtype) ? DType::kFloat32 : dtype, label, [&]<class T>() {
    std::ranges::transform(values, scratch.Allocate<T>(out, shape).data(),
                           [](double value) { return static_cast<T>(value); });
  });
  if (IsHalfFloat(dtype)) out = NarrowToHalf(out, dtype, scratch);
}

DType OutputType(const Node& node) {
  return static_cast<DType>(node.Int("output_datatype", static_cast<int64_t>(DType::kFloat32)));
}

constexpr int64_t kSamplesMax = int64_t{1} << 24;  // of a transform or table: 128 MB of doubles

int64_t CheckedLength(int64_t length, const std::string& what, const std::string& label) {
  if (length < 1 || length > kSamplesMax) {
    RefuseNode(
        what + " must be 1 to " + std::to_string(kSamplesMax) + ", is " + std::to_string(length),
        label);
  }
  return length;
}

}  // namespace

Op PrepareDft(const Node& node, const OpContext& context) {
  CheckInputCount(node, 1, 3);
  const bool axis_is_input = context.opset >= 20;
  return [dft = DftNode{.label = NodeLabel(node),
                        .inverse = node.Int("inverse", 0) != 0,
                        .onesided = node.Int("onesided", 0) != 0,
                        .axis = axis_is_input ? -2 : node.Int("axis", 1),
                        .axis_is_input = axis_is_input}](Inputs inputs, std::span<Tensor> outputs,
                                                         Scratch& scratch) {
    const Tensor& x = *inputs[0];
    PartsOf(x, dft.label);
    const bool reads_axis = dft.axis_is_input && Given(inputs, 2);
    const int64_t axis = NormalizeAxis(
        reads_axis ? IntegerOf(*inputs[2], "axis", dft.label) : dft.axis, x.rank(), dft.label);
    if (axis == x.rank() - 1) RefuseNode("its last axis is that of complex numbers", dft.label);
    const int64_t own = x.shape()[Sz(axis)];
    const int64_t length = Given(inputs, 1)   ? IntegerOf(*inputs[1], "dft_length", dft.label)
                           : dft.gives_real() ? 2 * (own - 1)
                                              : own;
    const Fourier fourier(CheckedLength(length, "dft_length", dft.label), dft.inverse);
    DispatchFloat(x.dtype(), dft.label,
                  [&]<class T>() { RunDft<T>(dft, axis, fourier, x, outputs[0], scratch); });
  };
}

// Inputs: signal [batch][length][1 or 2], frame_step, window [frame], frame_length.
Op PrepareStft(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 4);
  return [label = NodeLabel(node), onesided = node.Int("onesided", 1) != 0](
             Inputs inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const int64_t parts = PartsOf(x, label);
    if (x.rank() != 3) RefuseNode("needs signals of shape [batch, length, 1 or 2]", label);
    const int64_t length = x.shape()[1], step = IntegerOf(*inputs[1], "frame_step", label);
    const Tensor* window = Given(inputs, 2) ? inputs[2] : nullptr;
    const int64_t frame = Given(inputs, 3)    ? IntegerOf(*inputs[3], "frame_length", label)
                          : window != nullptr ? window->count()
                                              : length;
    if (step < 1 || frame < 1 || frame > length) {
      RefuseNode("frames of " + std::to_string(frame) + " samples every " + std::to_string(step) +
                     " do not fit a signal of " + std::to_string(length),
                 label);
    }
    if (window != nullptr && (window->count() != frame || window->dtype() != x.dtype())) {
      RefuseNode("its window must have the length of a frame and the signal's type", label);
    }
    const Fourier fourier(CheckedLength(frame, "frame_length", label), false);
    const int64_t frames = 1 + (length - frame) / step;
    const int64_t bins = onesided ? frame / 2 + 1 : frame;
    DispatchFloat(x.dtype(), label, [&]<class T>() {
      T* y = scratch.Allocate<T>(outputs[0], {x.shape()[0], frames, bins, 2}).data();
      const T* data = x.data<T>().data();
      const T* weights = window == nullptr ? nullptr : window->data<T>().data();
      scratch.ParallelFor(x.shape()[0] * frames, 1, [&](int64_t begin, int64_t end) {
        std::vector<Complex> line(Sz(frame)), spectrum(Sz(frame));
        for (int64_t i = begin; i < end; ++i) {
          const T* from = data + (i / frames * length + i % frames * step) * parts;
          for (int64_t t = 0; t < frame; ++t) {
            const double weight = weights == nullptr ? 1.0 : static_cast<double>(weights[t]);
            line[Sz(t)] = Read(from + t * parts, parts) * weight;
          }
          fourier.Run(line.data(), spectrum.data());
          for (int64_t t = 0; t < bins; ++t) {
            y[(i * bins + t) * 2] = static_cast<T>(spectrum[Sz(t)].real());
            y[(i * bins + t) * 2 + 1] = static_cast<T>(spectrum[Sz(t)].imag());
          }
        }
      });
    });
  };
}

// a0 - a1 cos(2 pi t / N) + a2 cos(4 pi t / N)
Op PrepareWindow(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  struct Cosines {
    double a0, a1, a2;
  };
  Cosines a{0.5, 0.5, 0};
  if (node.op_type == "HammingWindow") a = {25.0 / 46, 21.0 / 46, 0};
  if (node.op_type == "BlackmanWindow") a = {0.42, 0.5, 0.08};
  return [a, is_periodic = node.Int("periodic", 1) != 0, dtype = OutputType(node),
          label = NodeLabel(node)](Inputs inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const int64_t size = CheckedLength(IntegerOf(*inputs[0], "size", label), "size", label);
    // A symmetric window of one sample is its middle.
    const double period = static_cast<double>(is_periodic ? size : std::max<int64_t>(size - 1, 1));
    std::vector<double> window;
    for (int64_t t = 0; t < size; ++t) {
      const double turn = size == 1 && !is_periodic
                              ? std::numbers::pi
                              : 2 * std::numbers::pi * static_cast<double>(t) / period;
      window.push_back(a.a0 - a.a1 * std::cos(turn) + a.a2 * std::cos(2 * turn));
    }
    Emit(window, {size}, dtype, outputs[0], scratch, label);
  };
}

// Inputs: num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz. Triangles that
// stand at equal distances on the mel scale, 2595 log10(1 + f / 700); y is [dft_length / 2 + 1,
// num_mel_bins].
Op PrepareMelWeightMatrix(const Node& node, const OpContext&) {
  CheckInputCount(node, 5, 5);
  return [dtype = OutputType(node), label = NodeLabel(node)](
             Inputs inputs, std::span<Tensor> outputs, Scratch& scratch) {
    const int64_t bins =
        CheckedLength(IntegerOf(*inputs[0], "num_mel_bins", label), "num_mel_bins", label);
    const int64_t length =
        CheckedLength(IntegerOf(*inputs[1], "dft_length", label), "dft_length", label);
    const auto rate = static_cast<double>(IntegerOf(*inputs[2], "sample_rate", label));
    const auto mel = [&](size_t i, const char* what) {
      return 2595 * std::log10(1 + FloatOf(*inputs[i], what, label) / 700);
    };
    const double low = mel(3, "lower_edge_hertz"), high = mel(4, "upper_edge_hertz");
    const int64_t rows = length / 2 + 1;
    std::vector<int64_t> edges;
    for (int64_t i = 0; i < bins + 2; ++i) {
      const double at = low + (high - low) / static_cast<double>(bins + 2) * static_cast<double>(i);
      const double hertz = 700 * (std::pow(10, at / 2595) - 1);
      const double row = std::floor(static_cast<double>(length + 1) * hertz / rate);
      if (!(row >= 0 && row < static_cast<double>(rows))) {
        RefuseNode("its edges must lie between 0 and half of the sample rate", label);
      }
      edges.push_back(static_cast<int64_t>(row));
    }
    CheckedLength(ElementCount({rows, bins}), "its number of weights", label);
    std::vector<double> weights(Sz(rows * bins));
    for (int64_t i = 0; i < bins; ++i) {
      const int64_t left = edges[Sz(i)], center = edges[Sz(i + 1)], right = edges[Sz(i + 2)];
      const auto set = [&](int64_t row, int64_t part, int64_t whole) {
        weights[Sz(row * bins + i)] = static_cast<double>(part) / static_cast<double>(whole);
      };
      set(center, 1, 1);
      for (int64_t row = left; row < center; ++row) set(row, row - left, center - left);
      for (int64_t row = center; row < right; ++row) set(row, right - row, right - center);
    }
    Emit(weights, {rows, bins}, dtype, outputs[0], scratch, label);
  };
}

}  // namespace pared
