#include "evaluator/einsum.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <string>
#include <vector>

#include "evaluator/float_gemm.h"
#include "evaluator/op_checks.h"

namespace pared {
namespace {

// Axes are letters; the axes of an ellipsis are the characters '0', '1', ... counted from its last.
struct Equation {
  std::vector<std::string> inputs;
  std::string output;
  bool has_output = false;
};

Equation ParseEquation(const std::string& text, const std::string& label) {
  Equation equation;
  equation.inputs.emplace_back();
  for (size_t i = 0; i < text.size(); ++i) {
    std::string& term = equation.has_output ? equation.output : equation.inputs.back();
    const char c = text[i];
    if (c == ' ') continue;
    if (c == ',' && !equation.has_output) {
      equation.inputs.emplace_back();
    } else if (text.compare(i, 2, "->") == 0 && !equation.has_output) {
      equation.has_output = true;
      i += 1;
    } else if (text.compare(i, 3, "...") == 0) {
      term += '.';
      i += 2;
    } else if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      term += c;
    } else {
      RefuseNode("equation \"" + text + "\" cannot be read", label);
    }
  }
  return equation;
}

// Writes the ellipsis out as `count` digits.
std::string ExpandEllipsis(const std::string& term, int64_t count) {
  std::string out;
  for (const char c : term) {
    if (c != '.') {
      out += c;
      continue;
    }
    for (int64_t i = count; i-- > 0;) out += static_cast<char>('0' + i);
  }
  return out;
}

struct Axes {
  std::vector<std::string> terms;  // of each input
  std::string output, summed;
  std::map<char, int64_t> extents;
};

std::string ImplicitOutput(const std::vector<std::string>& terms) {
  std::map<char, int> uses;
  for (const std::string& term : terms) {
    for (const char c : term) ++uses[c];
  }
  std::string digits;
  std::string letters;
  for (const auto& [c, count] : uses) {
    if (c <= '9') digits.insert(digits.begin(), c);
    if (c > '9' && count == 1) letters += c;
  }
  return digits + letters;
}

Axes ResolveAxes(const Equation& equation, std::span<const Tensor* const> inputs,
                 const std::string& label) {
  Axes axes;
  int64_t ellipsis = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string& term = equation.inputs[i];
    const int64_t named =
        static_cast<int64_t>(term.size()) - std::count(term.begin(), term.end(), '.');
    const int64_t dots = term.find('.') == std::string::npos ? 0 : inputs[i]->rank() - named;
    if (dots < 0 || dots > 10) RefuseNode("an ellipsis does not fit its input", label);
    axes.terms.push_back(ExpandEllipsis(term, dots));
    ellipsis = std::max(ellipsis, dots);
    if (static_cast<int64_t>(axes.terms[i].size()) != inputs[i]->rank()) {
      RefuseNode("term " + term + " does not fit shape " + ShapeText(inputs[i]->shape()), label);
    }
    for (size_t d = 0; d < axes.terms[i].size(); ++d) {
      const int64_t extent = inputs[i]->shape()[d];
      int64_t& known = axes.extents.try_emplace(axes.terms[i][d], extent).first->second;
      if (known == 1) known = extent;
      if (extent != known && extent != 1) RefuseNode("extents of an axis differ", label);
    }
  }
  axes.output =
      equation.has_output ? ExpandEllipsis(equation.output, ellipsis) : ImplicitOutput(axes.terms);
  for (const char c : axes.output) {
    if (!axes.extents.contains(c)) RefuseNode("an output axis is in no input", label);
  }
  for (const auto& [c, extent] : axes.extents) {
    if (axes.output.find(c) == std::string::npos) axes.summed += c;
  }
  return axes;
}

// The step of each axis of `order` within an input (0: not there, or broadcast).
std::vector<int64_t> StepsOf(const std::string& order, const std::string& term,
                             const Shape& shape) {
  const Shape strides = StridesOf(shape);
  std::vector<int64_t> steps(order.size());
  for (size_t d = 0; d < term.size(); ++d) {
    const size_t at = order.find(term[d]);
    if (shape[d] != 1) steps[at] += strides[d];  // a letter twice walks the diagonal
  }
  return steps;
}

template <class T>
void RunEinsum(const Axes& axes, std::span<const Tensor* const> inputs, Tensor& output,
               Scratch& scratch) {
  Shape shape;
  for (const char c : axes.output) shape.push_back(axes.extents.at(c));
  const std::string order = axes.output + axes.summed;
  Shape extents;
  for (const char c : order) extents.push_back(axes.extents.at(c));
  std::vector<std::vector<int64_t>> steps;
  std::vector<const T*> data;
  for (size_t i = 0; i < inputs.size(); ++i) {
    steps.push_back(StepsOf(order, axes.terms[i], inputs[i]->shape()));
    data.push_back(inputs[i]->data<T>().data());
  }
  const std::span<T> y = scratch.Allocate<T>(output, shape);
  const int64_t sums =
      Extent(extents, static_cast<int64_t>(shape.size()), static_cast<int64_t>(extents.size()));
  scratch.ParallelFor(static_cast<int64_t>(y.size()), 64, [&](int64_t begin, int64_t end) {
    std::vector<int64_t> index(extents.size());
    for (int64_t out = begin; out < end; ++out) {
      T total{};
      for (int64_t s = 0; s < sums; ++s) {
        int64_t rest = out * sums + s;
        for (size_t d = extents.size(); d-- > 0; rest /= extents[d]) index[d] = rest % extents[d];
        T product{1};
        for (size_t i = 0; i < data.size(); ++i) {
          int64_t at = 0;
          for (size_t d = 0; d < index.size(); ++d) at += index[d] * steps[i][d];
          product = static_cast<T>(product * data[i][at]);
        }
        total = static_cast<T>(total + product);
      }
      y[Sz(out)] = total;
    }
  });
}

// Two float operands whose axes split into batch, left, right and one summed group, each lying in
// memory as strided products need it: one GEMM for each batch element. False: they do not.
struct PairPlan {
  std::string batch, left, right, sum;
};

bool SplitPair(const Axes& axes, PairPlan& plan) {
  for (const auto& [c, extent] : axes.extents) {
    const bool in_a = axes.terms[0].find(c) != std::string::npos;
    const bool in_b = axes.terms[1].find(c) != std::string::npos;
    const bool in_out = axes.output.find(c) != std::string::npos;
    if (!in_out && !(in_a && in_b)) return false;
  }
  for (const char c : axes.output) {
    const bool in_a = axes.terms[0].find(c) != std::string::npos;
    const bool in_b = axes.terms[1].find(c) != std::string::npos;
    (in_a && in_b ? plan.batch : in_a ? plan.left : plan.right) += c;
  }
  plan.sum = axes.summed;
  // c must lie as [batch][left][right] with one axis on each side, or several that lie together.
  return axes.output == plan.batch + plan.left + plan.right && plan.left.size() == 1 &&
         plan.right.size() == 1 && plan.sum.size() == 1;
}

bool RunAsGemm(const Axes& axes, std::span<const Tensor* const> inputs, const F32Kernels& kernels,
               Tensor& output, Scratch& scratch) {
  PairPlan plan;
  if (inputs.size() != 2 || !SplitPair(axes, plan)) return false;
  for (size_t i = 0; i < 2; ++i) {
    std::string letters = axes.terms[i];
    std::sort(letters.begin(), letters.end());
    if (std::adjacent_find(letters.begin(), letters.end()) != letters.end()) return false;
    for (size_t d = 0; d < axes.terms[i].size(); ++d) {
      if (inputs[i]->shape()[d] != axes.extents.at(axes.terms[i][d])) return false;
    }
  }
  const std::string order = plan.batch + plan.left + plan.right + plan.sum;
  const std::vector<int64_t> a = StepsOf(order, axes.terms[0], inputs[0]->shape());
  const std::vector<int64_t> b = StepsOf(order, axes.terms[1], inputs[1]->shape());
  const size_t at = plan.batch.size();
  Shape shape;
  for (const char c : axes.output) shape.push_back(axes.extents.at(c));
  float* c = scratch.Allocate<float>(output, shape).data();
  BatchedGemm gemm;
  gemm.m = shape[at];
  gemm.n = shape[at + 1];
  gemm.k = axes.extents.at(plan.sum[0]);
  gemm.a_row_step = a[at];
  gemm.a_column_step = a[at + 2];
  gemm.b_row_step = b[at + 2];
  gemm.b_column_step = b[at + 1];
  if (gemm.b_row_step != 1 && gemm.b_column_step != 1) return false;
  const int64_t count = Extent(shape, 0, static_cast<int64_t>(at));
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i;
    GemmOperands operands{inputs[0]->data<float>().data(), inputs[1]->data<float>().data(),
                          c + i * gemm.m * gemm.n};
    for (size_t d = at; d-- > 0; rest /= shape[d]) {
      operands.a += rest % shape[d] * a[d];
      operands.b += rest % shape[d] * b[d];
    }
    gemm.products.push_back(operands);
  }
  RunBatchedGemm(gemm, kernels, scratch);
  return true;
}

}  // namespace

Op PrepareEinsum(const Node& node, const OpContext& context) {
  const std::string label = NodeLabel(node);
  const Equation equation = ParseEquation(node.String("equation", ""), label);
  CheckInputCount(node, equation.inputs.size(), equation.inputs.size());
  const F32Kernels& kernels = F32KernelsFor(context.isa);
  return [equation, label, &kernels](std::span<const Tensor* const> inputs,
                                     std::span<Tensor> outputs, Scratch& scratch) {
    const Axes axes = ResolveAxes(equation, inputs, label);
    const DType dtype = inputs[0]->dtype();
    if (dtype == DType::kFloat32 && RunAsGemm(axes, inputs, kernels, outputs[0], scratch)) return;
    DispatchNumber(dtype, label,
                   [&]<class T>() { RunEinsum<T>(axes, inputs, outputs[0], scratch); });
  };
}

}  // namespace pared
