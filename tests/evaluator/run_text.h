// A graph that reads as text, run.

#pragma once

#include <string_view>
#include <vector>

#include "evaluator/executor.h"
#include "tests/testing/models.h"

namespace pared {

inline std::vector<Tensor> RunText(std::string_view text, const std::vector<Tensor>& inputs) {
  return Executor(ModelFromText(text)).Run(inputs);
}

}  // namespace pared
