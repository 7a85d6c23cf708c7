// Writes models as TensorFlow Lite files, each of which must be readable again.
//
// usage: write_tflite IN OUT [IN OUT]...      a line for each: "ok", or "refused: " and the reason

#include <cstdio>

#include "base/error.h"
#include "model/tflite.h"
#include "model/tflite_write.h"
#include "passes/tflite_form.h"

int main(int argc, char** argv) {
  for (int i = 1; i + 1 < argc; i += 2) {
    try {
      pared::SaveTflite(pared::TfliteForm(pared::LoadModel(argv[i]), {}), argv[i + 1]);
      pared::LoadTflite(argv[i + 1]);
      std::puts("ok");
    } catch (const pared::Error& e) {
      std::printf("refused: %s: %s\n", e.where().c_str(), e.what());
    }
  }
  return 0;
}
