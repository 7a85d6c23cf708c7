// What is fuzzed: functions over bytes that a stranger may send. Each refuses with an Error or does
// what it was asked; whatever else happens is a fault. libFuzzer drives them (the preset fuzz,
// libfuzzer_main.cc); corpus_test.cc runs them on every seed in the normal build.

#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace pared {

using FuzzInput = std::span<const uint8_t>;

// The bytes of a model file: read, written, told as text, its shapes inferred; what is written is
// read again and is the same.
void FuzzOnnx(FuzzInput input);

// The bytes of a TensorFlow Lite file: what is read of it is an ONNX model in order.
void FuzzTflite(FuzzInput input);

// One byte chooses a pass that needs no data; the rest is a model as text. The result must stand
// what every chain asks of it.
void FuzzPasses(FuzzInput input);

// The text of a job or batch spec, up to its plan.
void FuzzJobSpec(FuzzInput input);

// The text of a filter over runs, up to the rows that it finds.
void FuzzFilter(FuzzInput input);

// What a connection sends, through a real server on the loopback address.
void FuzzHttp(FuzzInput input);

inline std::string_view TextOf(FuzzInput input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

}  // namespace pared
