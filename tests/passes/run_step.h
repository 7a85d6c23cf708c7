// Passes as a step of a chain runs them; what they make may be kept for other runtimes.

#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "evaluator/npy.h"
#include "model/onnx.h"
#include "tests/passes/run_pass.h"

namespace pared {

// Where PARED_KEEP_MODELS names a folder: the model, with inputs and pared's outputs, for a script
// that runs it elsewhere.
inline void Keep(const Model& model) {
  const char* folder = std::getenv("PARED_KEEP_MODELS");
  if (folder == nullptr) return;
  static int count = 0;
  const std::filesystem::path place = std::filesystem::path(folder) / std::to_string(count++);
  std::filesystem::create_directories(place);
  const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
  std::ofstream(place / "test") << test->test_suite_name() << "." << test->name();
  SaveOnnx(model, place / "model.onnx");
  const Executor executor(model, {.fuse = false});
  const std::vector<Tensor> inputs =
      Dataset::Random(executor.inputs(), 1, 3).Sample(0, executor.inputs());
  const std::vector<Tensor> outputs = executor.Run(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    SaveNpy(inputs[i], place / ("input" + std::to_string(i) + ".npy"));
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    SaveNpy(outputs[i], place / ("output" + std::to_string(i) + ".npy"));
  }
}

// RunPass as a chain does it: functions are written out first.
inline PassResult RunStep(const std::string& name, Json options, Model model,
                          const Dataset* calibration = nullptr, int64_t threads = 1) {
  const PassInfo* pass = FindPass(name);
  PARED_CHECK(pass != nullptr);
  options["pass"] = name;
  PassContext context;
  context.calibration = calibration;
  context.threads = threads;
  Model out = BindPass(*pass, options, "").run(std::move(model), context);
  Verify(out);
  Keep(out);
  return {std::move(out), std::move(context.report)};
}

// Of all outputs, over the samples of `data`; -200 where one is not finite.
inline double SqnrDbOn(const Dataset& data, const Model& reference, const Model& model) {
  const Executor a(reference), b(model);
  FidelitySums sums;
  for (int64_t sample = 0; sample < data.sample_count(); ++sample) {
    const auto want = a.Run(data.Sample(sample, a.inputs()));
    const auto got = b.Run(data.Sample(sample, b.inputs()));
    for (size_t i = 0; i < want.size(); ++i) sums.Add(ToFloats(want[i]), ToFloats(got[i]));
  }
  return sums.has_nonfinite ? -200 : sums.SqnrDb();
}

}  // namespace pared
