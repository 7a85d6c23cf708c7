// Loads an ONNX file and saves it: resave IN OUT. Prints the peak resident memory in bytes.

#include <cstdio>
#include <fstream>
#include <string>

#include "base/error.h"
#include "model/onnx.h"

namespace {

// VmHWM and not getrusage: the latter starts from the size of the process that started this one.
long PeakBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stol(line.substr(6)) * 1024;
  }
  return -1;
}

}  // namespace

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
  std::printf("%ld\n", PeakBytes());
  return 0;
}
