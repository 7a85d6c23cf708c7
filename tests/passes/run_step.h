// Passes as a step of a chain runs them.

#pragma once

#include <string>

#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "tests/passes/run_pass.h"

namespace pared {

// RunPass as a chain does it: functions are written out first.
inline PassResult RunStep(const std::string& name, Json options, Model model,
                          const Dataset* calibration = nullptr, int64_t threads = 1) {
  const PassInfo* pass = FindPass(name);
  PARED_CHECK(pass != nullptr);
  options["pass"] = name;
  PassContext context;
  context.calibration = calibration;
  context.threads = threads;
  context.scratch = testing::TempDir();
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
