// Writes what a dataset gives a model without a declared shape: dump_samples FOLDER OUT, OUT/0.npy
// and so on. A sample that fails leaves OUT/N.txt with the error.

#include <filesystem>
#include <fstream>
#include <iostream>

#include "base/error.h"
#include "evaluator/dataset.h"
#include "evaluator/npy.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    const pared::Dataset dataset = pared::Dataset::Open(argv[1]);
    pared::ValueInfo input;
    input.name = "x";
    for (int64_t sample = 0; sample < dataset.sample_count(); ++sample) {
      const std::filesystem::path out = std::filesystem::path(argv[2]) / std::to_string(sample);
      try {
        pared::SaveNpy(dataset.Sample(sample, {input}).front(), out.string() + ".npy");
      } catch (const pared::Error& error) {
        std::ofstream(out.string() + ".txt") << error.what();
      }
    }
    return 0;
  } catch (const pared::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
