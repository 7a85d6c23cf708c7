#include "model/random_ops.h"

#include <algorithm>
#include <array>

namespace pared {

bool IsRandomOp(std::string_view op_type) {
  constexpr std::array<std::string_view, 7> kRandom = {
      "Bernoulli",        "Dropout",       "Multinomial",      "RandomNormal",
      "RandomNormalLike", "RandomUniform", "RandomUniformLike"};
  return std::ranges::find(kRandom, op_type) != kRandom.end();
}

}  // namespace pared
