// Models with random weights put in.

#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/testing/models.h"
#include "tests/testing/random_tensor.h"

namespace pared {

// The model that `text` spells, with normal weights of these names and shapes.
inline Model Made(std::string_view text,
                  const std::vector<std::pair<std::string, Shape>>& weights) {
  Random random(13);
  Model model = ParseText(text);
  for (const auto& [name, shape] : weights) {
    model = WithInitializer(std::move(model), name, random.Normal(shape, 0.4));
  }
  SortNodes(model.graph);
  Verify(model);
  return model;
}

}  // namespace pared
