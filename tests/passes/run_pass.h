// Passes by name, as a chain would run them.

#pragma once

#include <set>
#include <string>
#include <vector>

#include "passes/registry.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"

namespace pared {

struct PassResult {
  Model model;
  Json report;
};

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
  return {std::move(out), std::move(context.report)};
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

}  // namespace pared
