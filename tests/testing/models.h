// Models for tests: from text, with random weights put in, and real files.

#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/graph.h"
#include "model/text.h"

namespace pared {

// The model that `text` spells, in order and verified.
inline Model ModelFromText(std::string_view text) {
  Model model = ParseText(text);
  SortNodes(model.graph);
  Verify(model);
  return model;
}

// The inputs of a model with this signature, as "float[N,2] x, int64 n".
inline std::vector<ValueInfo> InputsOf(const std::string& signature) {
  return ModelFromText("g (" + signature + ") => (float y) { y = Constant <value_float = 1.0> () }")
      .graph.inputs;
}

// The model with initializer `name` added or replaced: for weights too large to spell.
inline Model WithInitializer(Model model, const std::string& name, Tensor tensor) {
  model.graph.initializers.set(name, {std::move(tensor), {}});
  return model;
}

// Where the real models lie.
inline std::filesystem::path RealModelFolder() {
  if (const char* folder = std::getenv("PARED_MODELS")) return folder;
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home == nullptr ? "/" : home) / ".cache" / "pared-models";
}

// Ends the test as skipped, by the file's name, where it is not on this machine.
#define PARED_REQUIRE_MODEL(path)                                            \
  if (!std::filesystem::exists(::pared::RealModelFolder() / (path))) {       \
    GTEST_SKIP() << "no " << (::pared::RealModelFolder() / (path)).string(); \
  }                                                                          \
  static_assert(true)

}  // namespace pared
