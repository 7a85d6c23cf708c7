#include "evaluator/einsum.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "evaluator/float_gemm.h"
#include "evaluator/op_checks.h"
#include "evaluator/strided.h"

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

Shape ExtentsOf(const std::string& letters, const Axes& axes) {
  Shape extents;
  for (const char c : letters) extents.push_back(axes.extents.at(c));
  return extents;
}

// Of element `flat` of `dims`, counted row-major.
int64_t OffsetOf(int64_t flat, const Shape& dims, const std::vector<int64_t>& steps) {
  int64_t at = 0;
  for (size_t d = dims.size(); d-- > 0; flat /= dims[d]) at += flat % dims[d] * steps[d];
  return at;
}

// The steps of an input along the output's axes, the summed ones but the last, and that one.
struct PlainSteps {
  std::vector<int64_t> output, outer;
  int64_t inner = 0;
};

template <class T>
void RunPlain(const Axes& axes, std::span<const Tensor* const> inputs, Tensor& output,
              Scratch& scratch) {
  const Shape shape = ExtentsOf(axes.output, axes);
  const std::string outer =
      axes.summed.substr(0, axes.summed.size() - (axes.summed.empty() ? 0 : 1));
  const std::string inner = axes.summed.substr(outer.size());
  std::vector<PlainSteps> steps;
  std::vector<const T*> data;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::vector<int64_t> all =
        StepsOf(axes.output + axes.summed, axes.terms[i], inputs[i]->shape());
    const auto summed = all.begin() + std::ssize(shape);
    steps.push_back({{all.begin(), summed},
                     {summed, summed + std::ssize(outer)},
                     inner.empty() ? 0 : all.back()});
    data.push_back(inputs[i]->data<T>().data());
  }
  const std::span<T> y = scratch.Allocate<T>(output, shape);
  const Shape outer_shape = ExtentsOf(outer, axes);
  const int64_t outer_count = ElementCount(outer_shape);
  const int64_t inner_count = ElementCount(ExtentsOf(inner, axes));
  if (inputs.size() > 1) scratch.AddMacs(std::ssize(y) * outer_count * inner_count);
  scratch.ParallelFor(static_cast<int64_t>(y.size()), 64, [&](int64_t begin, int64_t end) {
    std::vector<const T*> first(data.size()), at(data.size());
    for (int64_t out = begin; out < end; ++out) {
      for (size_t i = 0; i < data.size(); ++i) {
        first[i] = data[i] + OffsetOf(out, shape, steps[i].output);
      }
      T total{};
      for (int64_t s = 0; s < outer_count; ++s) {
        for (size_t i = 0; i < data.size(); ++i) {
          at[i] = first[i] + OffsetOf(s, outer_shape, steps[i].outer);
        }
        for (int64_t j = 0; j < inner_count; ++j) {
          T product{1};
          for (size_t i = 0; i < data.size(); ++i) {
            product = static_cast<T>(product * at[i][j * steps[i].inner]);
          }
          total = static_cast<T>(total + product);
        }
      }
      y[Sz(out)] = total;
    }
  });
}

// Axes of two operands, those of extent 1 apart: in both and the result, in one and the result, in
// both and summed.
struct PairPlan {
  std::string batch, left, right, sum;
};

// Whether the operand has the axis and is not broadcast along it.
bool Spans(const std::string& term, const Shape& shape, char c, int64_t extent) {
  const size_t at = term.find(c);
  return at != std::string::npos && shape[at] == extent;
}

// nullopt: an axis is summed in one operand alone, or there twice, or nothing is computed.
std::optional<PairPlan> SplitPair(const Axes& axes, std::span<const Tensor* const> inputs) {
  if (inputs.size() != 2) return std::nullopt;
  for (std::string letters : axes.terms) {
    std::ranges::sort(letters);
    if (std::ranges::adjacent_find(letters) != letters.end()) return std::nullopt;
  }
  PairPlan plan;
  for (const char c : axes.output + axes.summed) {
    const int64_t extent = axes.extents.at(c);
    if (extent == 0) return std::nullopt;
    if (extent == 1) continue;
    const bool in_a = Spans(axes.terms[0], inputs[0]->shape(), c, extent);
    const bool in_b = Spans(axes.terms[1], inputs[1]->shape(), c, extent);
    if (axes.output.find(c) == std::string::npos) {
      if (!in_a || !in_b) return std::nullopt;
      plan.sum += c;
    } else {
      (in_a && in_b ? plan.batch : in_a ? plan.left : plan.right) += c;
    }
  }
  return plan;
}

// An operand as a stack of matrices.
struct MatrixStack {
  const float* data = nullptr;
  std::vector<int64_t> batch_steps;
  int64_t row_step = 0, column_step = 0;
};

// The step of axes that lie one within the other as one axis; nullopt: they do not.
std::optional<int64_t> JointStep(const Shape& dims, std::span<const int64_t> steps) {
  for (size_t d = 1; d < dims.size(); ++d) {
    if (steps[d - 1] != steps[d] * dims[d]) return std::nullopt;
  }
  return dims.empty() ? 1 : steps.back();
}

// As it lies where rows and columns have one step each and one of these is 1; else a copy.
MatrixStack StackOf(const Tensor& input, const std::string& term, const Axes& axes,
                    const std::array<std::string, 3>& groups, Scratch& scratch) {
  const auto& [batch, rows, columns] = groups;
  const std::string order = batch + rows + columns;
  const Shape strides = StridesOf(input.shape());
  std::vector<int64_t> steps;
  for (const char c : order) steps.push_back(strides[term.find(c)]);
  const std::span<const int64_t> all = steps;
  const auto row = JointStep(ExtentsOf(rows, axes), all.subspan(batch.size(), rows.size()));
  const auto column = JointStep(ExtentsOf(columns, axes), all.last(columns.size()));
  const float* data = input.data<float>().data();
  if (row && column && (*row == 1 || *column == 1)) {
    return {data, {steps.begin(), steps.begin() + std::ssize(batch)}, *row, *column};
  }
  const StridedView view{ExtentsOf(order, axes), steps};
  auto* copy = reinterpret_cast<float*>(scratch.Temporary(Sz(ElementCount(view.dims)) * 4));
  CopyStrided(data, view, copy, scratch);
  const Shape dense = StridesOf(view.dims);
  const int64_t width = ElementCount(ExtentsOf(columns, axes));
  return {copy, {dense.begin(), dense.begin() + std::ssize(batch)}, width, 1};
}

constexpr int64_t kProductMin = 64;  // multiplications: below, a product costs more than they do

// One GEMM for each element of the batch. False: the operands are no such pair.
bool RunAsGemm(const Axes& axes, std::span<const Tensor* const> inputs, const F32Kernels& kernels,
               Tensor& output, Scratch& scratch) {
  const std::optional<PairPlan> plan = SplitPair(axes, inputs);
  if (!plan) return false;
  BatchedGemm gemm;
  gemm.m = ElementCount(ExtentsOf(plan->left, axes));
  gemm.n = ElementCount(ExtentsOf(plan->right, axes));
  gemm.k = ElementCount(ExtentsOf(plan->sum, axes));
  if (gemm.m * gemm.n * gemm.k < kProductMin) return false;
  const MatrixStack a =
      StackOf(*inputs[0], axes.terms[0], axes, {plan->batch, plan->left, plan->sum}, scratch);
  const MatrixStack b =
      StackOf(*inputs[1], axes.terms[1], axes, {plan->batch, plan->sum, plan->right}, scratch);
  gemm.a_row_step = a.row_step;
  gemm.a_column_step = a.column_step;
  gemm.b_row_step = b.row_step;
  gemm.b_column_step = b.column_step;
  float* y = scratch.Allocate<float>(output, ExtentsOf(axes.output, axes)).data();
  const std::string made = plan->batch + plan->left + plan->right;
  std::string wanted = axes.output;
  std::erase_if(wanted, [&](char c) { return axes.extents.at(c) == 1; });
  float* c = made == wanted
                 ? y
                 : reinterpret_cast<float*>(scratch.Temporary(Sz(output.count()) * sizeof(float)));
  const Shape batch = ExtentsOf(plan->batch, axes);
  for (int64_t i = 0; i < ElementCount(batch); ++i) {
    gemm.products.push_back({a.data + OffsetOf(i, batch, a.batch_steps),
                             b.data + OffsetOf(i, batch, b.batch_steps), c + i * gemm.m * gemm.n});
  }
  RunBatchedGemm(gemm, kernels, scratch);
  if (c != y) {
    const Shape dims = ExtentsOf(made, axes);
    CopyStrided(c, {ExtentsOf(wanted, axes), StepsOf(wanted, made, dims)}, y, scratch);
  }
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
                   [&]<class T>() { RunPlain<T>(axes, inputs, outputs[0], scratch); });
  };
}

}  // namespace pared
