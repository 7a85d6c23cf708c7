// Passes by name, as a chain would run them; what they make may be kept for other runtimes.

#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "evaluator/executor.h"
#include "evaluator/npy.h"
#include "model/onnx.h"
#include "passes/registry.h"
#include "tests/testing/floats.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {

struct PassResult {
  Model model;
  Json report;
};

// Whether it computes something else at each run.
inline bool IsRandom(const Model& model) {
  return std::ranges::any_of(model.graph.nodes, [](const Node& node) {
    return node.op_type.starts_with("Random") ||
           (node.op_type == "Dropout" && node.inputs.size() > 2);
  });
}

// Where PARED_KEEP_MODELS names a folder: the model, with inputs and pared's outputs, for a script
// that runs it elsewhere.
inline void Keep(const Model& model) {
  const char* folder = std::getenv("PARED_KEEP_MODELS");
  if (folder == nullptr || IsRandom(model)) return;
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

// Runs the pass, verifies its result.
inline PassResult RunPass(const std::string& name, Json options, Model model,
                          const Dataset* calibration = nullptr) {
  const PassInfo* pass = FindPass(name);
  PARED_CHECK(pass != nullptr);
  options["pass"] = name;
  PassContext context;
  context.calibration = calibration;
  Model out = pass->bind(*pass, options, "").run(std::move(model), context);
  Verify(out);
  Keep(out);
  return {std::move(out), std::move(context.report)};
}

// The elements of the first output.
inline std::vector<float> Output(const Model& model, const std::vector<Tensor>& inputs) {
  return ValuesOf(Executor(model).Run(inputs)[0]);
}

inline std::vector<float> Output(const Model& model, const Tensor& x) {
  return Output(model, std::vector<Tensor>{x});
}

// The elements of an initializer as float.
inline std::vector<float> Elements(const Model& model, const std::string& name) {
  const Tensor& tensor = model.graph.initializers.at(name).tensor;
  std::vector<float> values;
  if (tensor.dtype() == DType::kFloat32) {
    for (const float value : tensor.data<float>()) values.push_back(value);
  } else if (tensor.dtype() == DType::kInt8) {
    for (const int8_t value : tensor.data<int8_t>()) values.push_back(value);
  } else if (tensor.dtype() == DType::kInt32) {
    for (const int32_t value : tensor.data<int32_t>()) values.push_back(static_cast<float>(value));
  } else {
    ADD_FAILURE() << name << " is " << DTypeName(tensor.dtype());
  }
  return values;
}

inline std::vector<std::string> OpTypes(const Graph& graph) {
  std::vector<std::string> ops;
  for (const Node& node : graph.nodes) ops.push_back(node.op_type);
  return ops;
}

// The reason the report gives for leaving the node alone; empty: none.
inline std::string SkippedReason(const Json& report, const std::string& node) {
  for (const Json& entry : report.at("skipped")) {
    if (entry.at("node") == node) return entry.at("reason");
  }
  return "";
}

// The first warning of the report with `words` in it; empty: none.
inline std::string WarningOf(const Json& report, const std::string& words) {
  for (const Json& warning : report.value("warnings", Json::array())) {
    const std::string text = warning;
    if (text.find(words) != std::string::npos) return text;
  }
  return "";
}

}  // namespace pared
