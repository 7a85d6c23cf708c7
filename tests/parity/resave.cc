// Loads an ONNX file and saves it: resave IN OUT. Prints the peak resident memory in bytes.

#include <sys/resource.h>

#include <cstdio>

#include "base/error.h"
#include "model/onnx.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: resave IN OUT\n");
    return 2;
  }
  try {
    pared::SaveOnnx(pared::LoadOnnx(argv[1]), argv[2]);
  } catch (const pared::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  std::printf("%ld\n", usage.ru_maxrss * 1024);
  return 0;
}
