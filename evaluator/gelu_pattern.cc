// GELU as exporters spell it.
//
// Before:  t = Erf(x / sqrt 2)  y = x (t + 1) / 2                            After:  y = Gelu(x)
// Before:  t = Tanh(sqrt(2 / pi) (x + 0.044715 x^3))  y = x (t + 1) / 2      After:  y = Gelu(x)
//
// There are a dozen spellings: x^3 by Pow or by products, x (1 + 0.044715 x^2), the half on either
// factor or on both terms, 1 - erf(-x / sqrt 2). None is looked for. What is computed around the
// function is multiplied out, as a polynomial in x and t, and compared with the definition.

#include "evaluator/gelu_pattern.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "evaluator/fuse_graph.h"

namespace pared {
namespace {

constexpr size_t kPowers = 4;        // of x: 0 to 3
constexpr int kDepthMax = 10;        // nodes on a path of a pattern
constexpr size_t kCandidates = 16;   // values tried as x
constexpr double kTolerance = 4e-6;  // relative: constants rounded to six digits or to float32

// The sum of terms[i][j] x^i t^j.
struct Polynomial {
  std::array<std::array<double, 2>, kPowers> terms{};
};

std::optional<Polynomial> Times(const Polynomial& a, const Polynomial& b) {
  Polynomial product;
  for (size_t i = 0; i < kPowers * 2; ++i) {
    for (size_t j = 0; j < kPowers * 2; ++j) {
      const double term = a.terms[i / 2][i % 2] * b.terms[j / 2][j % 2];
      if (term == 0) continue;
      const size_t x = i / 2 + j / 2, t = i % 2 + j % 2;
      if (x >= kPowers || t > 1) return {};
      product.terms[x][t] += term;
    }
  }
  return product;
}

Polynomial Plus(Polynomial a, const Polynomial& b, double factor) {
  for (size_t i = 0; i < kPowers; ++i) {
    for (size_t j = 0; j < 2; ++j) a.terms[i][j] += factor * b.terms[i][j];
  }
  return a;
}

bool IsAbout(const Polynomial& a, const Polynomial& b) {
  for (size_t i = 0; i < kPowers; ++i) {
    for (size_t j = 0; j < 2; ++j) {
      const double wanted = b.terms[i][j];
      if (!(std::abs(a.terms[i][j] - wanted) <= kTolerance * std::abs(wanted))) return false;
    }
  }
  return true;
}

class Expression {
 public:
  Expression(const Graph& graph, const GraphIndex& index, int64_t ir_version, const Node& function)
      : graph_(graph), index_(index), ir_version_(ir_version), function_(function) {}

  std::optional<Polynomial> Of(const std::string& value, const std::string& x) {
    return Expand(value, x, kDepthMax);
  }
  // Those that have been multiplied out.
  const std::unordered_set<const Node*>& nodes() const { return nodes_; }

  std::optional<double> Number(const std::string& value) const {
    return ConstantNumber(graph_, index_, value, ir_version_);
  }
  // Null: `value` is made by nothing that can be multiplied out.
  const Node* Arithmetic(const std::string& value) const {
    const Node* node = index_.producer(value);
    if (node == nullptr || !node->domain.empty()) return nullptr;
    const std::string& op = node->op_type;
    const bool is_binary = op == "Add" || op == "Sub" || op == "Mul" || op == "Div" || op == "Pow";
    return is_binary || op == "Neg" ? node : nullptr;
  }

 private:
  std::optional<Polynomial> Expand(const std::string& value, const std::string& x, int depth) {
    Polynomial leaf;
    if (value == x) {
      leaf.terms[1][0] = 1;
      return leaf;
    }
    if (value == function_.outputs[0]) {
      leaf.terms[0][1] = 1;
      return leaf;
    }
    if (const std::optional<double> number = Number(value)) {
      leaf.terms[0][0] = *number;
      return leaf;
    }
    const Node* node = Arithmetic(value);
    if (node == nullptr || depth == 0) return {};
    nodes_.insert(node);
    const std::optional<Polynomial> a = Expand(node->inputs[0], x, depth - 1);
    if (!a) return {};
    if (node->op_type == "Neg") return Plus({}, *a, -1);
    if (node->op_type == "Pow") return Power(*a, node->inputs[1]);
    if (node->op_type == "Div") {
      const std::optional<double> divisor = Number(node->inputs[1]);
      if (!divisor || *divisor == 0) return {};
      return Plus({}, *a, 1 / *divisor);
    }
    const std::optional<Polynomial> b = Expand(node->inputs[1], x, depth - 1);
    if (!b) return {};
    if (node->op_type == "Mul") return Times(*a, *b);
    return Plus(*a, *b, node->op_type == "Add" ? 1 : -1);
  }

  std::optional<Polynomial> Power(const Polynomial& a, const std::string& exponent) const {
    const std::optional<double> number = Number(exponent);
    if (!number || (*number != 2 && *number != 3)) return {};
    const std::optional<Polynomial> square = Times(a, a);
    return *number == 2 || !square ? square : Times(*square, a);
  }

  const Graph& graph_;
  const GraphIndex& index_;
  int64_t ir_version_;
  const Node& function_;
  std::unordered_set<const Node*> nodes_;
};

// Values that the function's argument is computed from, nearest first.
std::vector<std::string> Candidates(const Expression& expression, const std::string& argument) {
  std::vector<std::string> found = {argument};
  for (size_t i = 0; i < found.size() && found.size() < kCandidates; ++i) {
    const Node* node = expression.Arithmetic(found[i]);
    if (node == nullptr) continue;
    for (const std::string& input : node->inputs) {
      if (!expression.Number(input) && std::ranges::find(found, input) == found.end()) {
        found.push_back(input);
      }
    }
  }
  return found;
}

// What the function's argument is: `sign` times this.
Polynomial ArgumentOf(bool is_tanh, double sign) {
  Polynomial wanted;
  wanted.terms[1][0] = sign * (is_tanh ? std::sqrt(2 / M_PI) : std::sqrt(0.5));
  if (is_tanh) wanted.terms[3][0] = 0.044715 * wanted.terms[1][0];
  return wanted;
}

// Whether nobody outside reads what the nodes before `last` make.
bool AreInner(const GraphIndex& index, const std::unordered_set<const Node*>& nodes,
              const Node* last) {
  for (const Node* node : nodes) {
    if (node == last) continue;
    if (index.is_output(node->outputs[0])) return false;
    for (const Node* reader : index.consumers(node->outputs[0])) {
      if (!nodes.contains(reader)) return false;
    }
  }
  return true;
}

// The node after the function that computes x (1 + sign t) / 2. Null: none, or others read what
// is in between.
const Node* ResultOf(const GraphIndex& index, Expression& expression, const Node& function,
                     const std::string& x, double sign) {
  Polynomial wanted;
  wanted.terms[1] = {0.5, sign * 0.5};
  const Node* last = &function;
  for (int depth = 0; depth < kDepthMax; ++depth) {
    const std::vector<const Node*>& readers = index.consumers(last->outputs[0]);
    if (readers.size() != 1 || readers[0]->outputs.size() != 1) return nullptr;
    last = readers[0];
    Expression whole = expression;
    const std::optional<Polynomial> value = whole.Of(last->outputs[0], x);
    if (!value) return nullptr;
    if (!IsAbout(*value, wanted)) continue;
    std::unordered_set<const Node*> nodes = whole.nodes();
    nodes.insert(&function);
    return AreInner(index, nodes, last) ? last : nullptr;
  }
  return nullptr;
}

}  // namespace

std::optional<FloatPattern> FindGelu(const Graph& graph, const GraphIndex& index,
                                     int64_t ir_version, const Node& function) {
  const bool is_tanh = function.op_type == "Tanh";
  const Expression start(graph, index, ir_version, function);
  for (const std::string& x : Candidates(start, function.inputs[0])) {
    Expression expression = start;
    const std::optional<Polynomial> argument = expression.Of(function.inputs[0], x);
    if (!argument) continue;
    const double sign = std::copysign(1.0, argument->terms[1][0]);
    if (!IsAbout(*argument, ArgumentOf(is_tanh, sign))) continue;
    const Node* last = ResultOf(index, expression, function, x, sign);
    if (last == nullptr) continue;
    FloatPattern found;
    found.last = static_cast<size_t>(last - graph.nodes.data());
    found.node.name = last->name;
    found.node.op_type = "Gelu";
    found.node.domain = "com.microsoft";
    found.node.inputs = {x};
    found.node.outputs = last->outputs;
    if (is_tanh) SetString(found.node, "approximate", "tanh");
    return found;
  }
  return {};
}

}  // namespace pared
