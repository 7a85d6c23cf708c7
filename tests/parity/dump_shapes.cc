// Prints what InferShapes finds, one value a line: name, dtype number, dimensions ("?": not known).

#include <cstdio>
#include <string>

#include "base/error.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: dump_shapes MODEL\n");
    return 2;
  }
  try {
    pared::Model model = pared::LoadOnnx(argv[1]);
    // What the file states of inner values would hide what inference finds.
    model.graph.values = {};
    for (const auto& [name, type] : pared::InferShapes(model)) {
      std::string dims = type.shape.has_value() ? "" : "unranked";
      for (const pared::Dim& dim : type.shape.value_or(std::vector<pared::Dim>())) {
        dims += (dim.value >= 0 ? std::to_string(dim.value) : "?") + " ";
      }
      std::printf("%s\t%d\t%s\n", name.c_str(), static_cast<int>(type.dtype), dims.c_str());
    }
  } catch (const pared::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  return 0;
}
