// Every seed of the corpus, and many damages of each, through its fuzz target: a fault
// once found stays found, in the normal build and under the sanitizers. PARED_FUZZ_DAMAGES=50000
// tries so many of each seed.

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "tests/fuzz/targets.h"
#include "tests/testing/random_tensor.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

struct Target {
  const char* name;
  void (*run)(FuzzInput);
  int damages;  // of each seed
};

void PrintTo(const Target& target, std::ostream* os) { *os << target.name; }

void Feed(const Target& target, const std::string& bytes) {
  target.run({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

std::map<std::string, std::string> SeedsOf(const char* target) {
  std::map<std::string, std::string> seeds;
  const std::filesystem::path folder = std::filesystem::path("tests/fuzz/corpus") / target;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    seeds[entry.path().filename().string()] = ReadFile(entry.path());
  }
  return seeds;
}

std::string Damaged(std::string bytes, Random& random) {
  for (int64_t count = random.Integer(1, 4); count > 0 && !bytes.empty(); --count) {
    const auto size = static_cast<int64_t>(bytes.size());
    const auto at = static_cast<size_t>(random.Integer(0, size - 1));
    const auto length = static_cast<size_t>(random.Integer(1, 12));
    switch (random.Integer(0, 3)) {
      case 0:
        bytes[at] = static_cast<char>(random.Integer(0, 255));
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Integer(0, 7)));
        break;
      case 2:
        bytes.erase(at, length);
        break;
      default:
        bytes.insert(at, bytes.substr(static_cast<size_t>(random.Integer(0, size - 1)), length));
    }
  }
  return bytes;
}

int DamagesOf(const Target& target) {
  const char* text = std::getenv("PARED_FUZZ_DAMAGES");
  return text == nullptr ? target.damages : std::atoi(text);
}

class Corpus : public ::testing::TestWithParam<Target> {};

// The targets abort on a fault; what they must do with the bytes stands in each.
TEST_P(Corpus, SeedsAndDamagesOfThemAreReadOrRefused) {
  const auto seeds = SeedsOf(GetParam().name);
  ASSERT_GT(seeds.size(), 5u);
  Random random;
  const int damages = DamagesOf(GetParam());
  for (const auto& [name, bytes] : seeds) {
    SCOPED_TRACE(name);
    Feed(GetParam(), bytes);
    for (int i = 0; i < damages; ++i) Feed(GetParam(), Damaged(bytes, random));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, Corpus,
    ::testing::Values(Target{"onnx", FuzzOnnx, 3000}, Target{"tflite", FuzzTflite, 1000},
                      Target{"passes", FuzzPasses, 3000}, Target{"job_spec", FuzzJobSpec, 2000},
                      Target{"filter", FuzzFilter, 1000}, Target{"http", FuzzHttp, 200}),
    [](const auto& named) { return std::string(named.param.name); });

}  // namespace
}  // namespace pared
