// libFuzzer's entry for the target named by FUZZ_TARGET (CMakeLists.txt).

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  pared::FUZZ_TARGET({data, size});
  return 0;
}
