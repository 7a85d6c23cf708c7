// Runs a model on demand, for scripts that compare with other runtimes.
//
//   run_model MODEL [--threads N] [--unfused] [--tune] [--inputs X.npy ...]
//
// Reads commands from standard input and answers each on standard output:
//   time N        milliseconds of N runs, in one line
//   profile N     one line a node: milliseconds, macs, density, operator, kernel, name
//   save FOLDER   output I as FOLDER/I.bin (row-major); answers "dtype shape" of each

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "evaluator/dataset.h"
#include "evaluator/executor.h"
#include "evaluator/npy.h"
#include "model/onnx.h"

namespace pared {
namespace {

struct Arguments {
  std::string model;
  ExecutorOptions options;
  std::vector<std::string> inputs;
};

Arguments ParseArguments(const std::vector<std::string>& words) {
  Arguments result;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--threads") {
      result.options.threads = std::stoll(words.at(++i));
    } else if (words[i] == "--unfused") {
      result.options.fuse = false;
    } else if (words[i] == "--tune") {
      result.options.tune = true;
    } else if (words[i] == "--inputs") {
      result.inputs.assign(words.begin() + static_cast<int64_t>(i) + 1, words.end());
      break;
    } else {
      result.model = words[i];
    }
  }
  return result;
}

void Time(const Executor& executor, const std::vector<Tensor>& inputs, int64_t runs) {
  for (int64_t i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    executor.Run(inputs);
    const std::chrono::duration<double, std::milli> elapsed =
        std::chrono::steady_clock::now() - start;
    std::cout << elapsed.count() << ' ';
  }
  std::cout << std::endl;
}

void Profile(const Executor& executor, const std::vector<Tensor>& inputs, int64_t runs) {
  for (const LayerStats& layer : executor.Profile(inputs, runs)) {
    std::printf("%.5f %lld %.3f %s %s %s\n", layer.time_ms, static_cast<long long>(layer.macs),
                layer.density, layer.op_type.c_str(),
                layer.kernel.empty() ? "-" : layer.kernel.c_str(), layer.node.c_str());
  }
  std::printf("end\n");
  std::fflush(stdout);
}

void Save(const Executor& executor, const std::vector<Tensor>& inputs,
          const std::filesystem::path& folder) {
  const std::vector<Tensor> outputs = executor.Run(inputs);
  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::span<const std::byte> bytes = outputs[i].bytes();
    std::ofstream file(folder / (std::to_string(i) + ".bin"), std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    std::cout << DTypeName(outputs[i].dtype()) << ' ' << ShapeText(outputs[i].shape()) << '\n';
  }
  std::cout << "end" << std::endl;
}

int Main(const std::vector<std::string>& words) {
  const Arguments arguments = ParseArguments(words);
  const Executor executor(LoadOnnx(arguments.model), arguments.options);
  std::vector<Tensor> inputs;
  for (const std::string& path : arguments.inputs) inputs.push_back(LoadNpy(path));
  std::cout << "ready" << std::endl;
  for (std::string command; std::cin >> command;) {
    std::string argument;
    std::cin >> argument;
    if (command == "time") Time(executor, inputs, std::stoll(argument));
    if (command == "profile") Profile(executor, inputs, std::stoll(argument));
    if (command == "save") Save(executor, inputs, argument);
  }
  return 0;
}

}  // namespace
}  // namespace pared

int main(int argc, char** argv) {
  try {
    return pared::Main({argv + 1, argv + argc});
  } catch (const pared::Error& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
