#include "evaluator/recurrent_gates.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "evaluator/op_checks.h"

namespace pared {
namespace {

template <class F>
Gate Each(const F& f) {
  return [f](float* x, int64_t count) {
    for (int64_t i = 0; i < count; ++i) x[i] = f(x[i]);
  };
}

Gate MakeGate(const std::string& given, float alpha, float beta, const F32Kernels& kernels,
              const std::string& label) {
  std::string name;
  for (const char c : given) name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto by_kernel = [&](ActivationKind kind) -> Gate {
    return [activate = kernels.activate, activation = ActivationF32{kind, alpha, beta}](
               float* x, int64_t count) { activate(activation, x, count); };
  };
  if (name == "sigmoid") return by_kernel(ActivationKind::kSigmoid);
  if (name == "tanh") return by_kernel(ActivationKind::kTanh);
  if (name == "hardsigmoid") return by_kernel(ActivationKind::kHardSigmoid);
  if (name == "leakyrelu") return by_kernel(ActivationKind::kLeakyRelu);
  if (name == "relu") return Each([](float x) { return std::max(x, 0.0F); });
  if (name == "affine") return Each([=](float x) { return alpha * x + beta; });
  if (name == "thresholdedrelu") return Each([=](float x) { return x > alpha ? x : 0.0F; });
  if (name == "scaledtanh") return Each([=](float x) { return alpha * std::tanh(beta * x); });
  if (name == "elu") return Each([=](float x) { return x < 0 ? alpha * (std::exp(x) - 1) : x; });
  if (name == "softsign") return Each([](float x) { return x / (1 + std::abs(x)); });
  if (name == "softplus") return Each([](float x) { return std::log1p(std::exp(x)); });
  throw Error(ErrorCode::kUnsupported, "activation \"" + given + "\"", label);
}

}  // namespace

std::vector<std::vector<Gate>> ReadGates(const Node& node, const std::vector<std::string>& defaults,
                                         int64_t directions, const F32Kernels& kernels) {
  const std::string label = NodeLabel(node);
  std::vector<std::string> names = node.Strings("activations");
  if (names.empty()) {
    for (int64_t d = 0; d < directions; ++d) {
      names.insert(names.end(), defaults.begin(), defaults.end());
    }
  }
  if (names.size() != defaults.size() * Sz(directions)) {
    RefuseNode("activations does not fit the directions", label);
  }
  const std::vector<float> alphas = node.Floats("activation_alpha");
  const std::vector<float> betas = node.Floats("activation_beta");
  std::vector<std::vector<Gate>> gates;
  size_t alpha = 0;
  size_t beta = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    if (i % defaults.size() == 0) gates.emplace_back();
    const std::string& n = names[i];
    const bool takes_both = n == "Affine" || n == "ScaledTanh" || n == "HardSigmoid";
    const bool takes_alpha = takes_both || n == "LeakyRelu" || n == "ThresholdedRelu" || n == "Elu";
    const float a = n == "LeakyRelu" ? 0.01F : n == "HardSigmoid" ? 0.2F : 1.0F;
    const float b = n == "HardSigmoid" ? 0.5F : n == "Affine" ? 0.0F : 1.0F;
    const bool has_alpha = takes_alpha && alpha < alphas.size();
    const bool has_beta = takes_both && beta < betas.size();
    gates.back().push_back(
        MakeGate(n, has_alpha ? alphas[alpha++] : a, has_beta ? betas[beta++] : b, kernels, label));
  }
  return gates;
}

}  // namespace pared
