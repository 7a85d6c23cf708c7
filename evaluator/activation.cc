#include "evaluator/activation.h"

#include <array>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace pared {
namespace {

struct Named {
  std::string_view name;
  ActivationF32 activation;  // with the parameters' defaults
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr std::array kActivations = {
    Named{"Relu", {ActivationKind::kClamp, 0, kInfinity}},
    Named{"Clip", {ActivationKind::kClamp, -kInfinity, kInfinity}},
    Named{"LeakyRelu", {ActivationKind::kLeakyRelu, 0.01F, 0}},
    Named{"Sigmoid", {ActivationKind::kSigmoid, 0, 0}},
    Named{"Tanh", {ActivationKind::kTanh, 0, 0}},
    Named{"HardSigmoid", {ActivationKind::kHardSigmoid, 0.2F, 0.5F}},
    Named{"HardSwish", {ActivationKind::kHardSwish, 0, 0}},
    Named{"Silu", {ActivationKind::kSilu, 1, 0}},
    Named{"Gelu", {ActivationKind::kGelu, 0, 0}},
    Named{"GeluTanh", {ActivationKind::kGeluTanh, 0, 0}},
    Named{"Erf", {ActivationKind::kErf, 0, 0}},
};

}  // namespace

ActivationF32 ReadActivation(const Node& node) {
  const std::string name = node.String("activation", "");
  if (name.empty()) return {};
  for (const Named& known : kActivations) {
    if (known.name != name) continue;
    ActivationF32 activation = known.activation;
    const std::vector<float> parameters = node.Floats("activation_params");
    if (!parameters.empty()) activation.alpha = parameters[0];
    if (parameters.size() > 1) activation.beta = parameters[1];
    return activation;
  }
  throw Error(ErrorCode::kUnsupported, "activation \"" + name + "\"", NodeLabel(node));
}

}  // namespace pared
