// What must hold of every pass's result, and is told by the report.

#pragma once

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "evaluator/dataset.h"
#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "model/infer_shapes.h"
#include "passes/inline_functions.h"
#include "passes/node_history.h"
#include "passes/select_nodes.h"
#include "tests/testing/matchers.h"

namespace pared {

inline std::vector<std::string> Labels(const Json& entries) {
  std::vector<std::string> labels;
  for (const Json& entry : entries) labels.push_back(entry.at("node").get<std::string>());
  return labels;
}

// Labels of all nodes with one of these operators, in subgraphs too.
inline std::vector<std::string> NodesOf(const Model& model,
                                        const std::vector<std::string>& op_types) {
  std::vector<std::string> labels;
  const auto note = [&](const Node& node) {
    if (std::ranges::find(op_types, node.op_type) != op_types.end()) {
      labels.push_back(NodeLabel(node));
    }
  };
  ForEachNode(model.graph, note);
  return labels;
}

// The samples that calibration sees: what lies beyond them is another question. `batch`: what axes
// of unknown size are.
inline Dataset Samples(const Model& model, int64_t batch = 1) {
  std::vector<ValueInfo> inputs = CallerInputs(model.graph);
  for (ValueInfo& input : inputs) {
    if (!input.shape) continue;
    for (Dim& dim : *input.shape) {
      if (dim.value < 0) dim.value = batch;
    }
  }
  return Dataset::Random(inputs, 16, 3);
}

inline double WorstSqnrDb(const Model& reference, const Model& model, int64_t batch = 1) {
  std::vector<FidelitySums> sums(reference.graph.outputs.size());
  const Executor before(reference), after(model);
  const Dataset samples = Samples(reference, batch);
  for (int64_t sample = 0; sample < 16; ++sample) {
    const std::vector<Tensor> want = before.Run(samples.Sample(sample, before.inputs()));
    const std::vector<Tensor> got = after.Run(samples.Sample(sample, after.inputs()));
    EXPECT_EQ(want.size(), got.size());
    for (size_t i = 0; i < std::min(want.size(), got.size()); ++i) {
      EXPECT_EQ(want[i].dtype(), got[i].dtype()) << "output " << i;
      EXPECT_EQ(want[i].shape(), got[i].shape()) << "output " << i;
      sums[i].Add(ToFloats(want[i]), ToFloats(got[i]));
    }
  }
  double worst = 200;
  for (const FidelitySums& output : sums) {
    EXPECT_FALSE(output.has_nonfinite);
    worst = std::min(worst, output.SqnrDb());
  }
  return worst;
}

inline void ExpectSameInterface(const Model& in, const Model& out) {
  const auto before = CallerInputs(in.graph), after = CallerInputs(out.graph);
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(before[i].name, after[i].name);
    EXPECT_EQ(before[i].dtype, after[i].dtype);
  }
  ASSERT_EQ(in.graph.outputs.size(), out.graph.outputs.size());
  const auto types = InferShapes(out);
  for (size_t i = 0; i < in.graph.outputs.size(); ++i) {
    const ValueInfo& output = in.graph.outputs[i];
    EXPECT_EQ(output.name, out.graph.outputs[i].name);
    EXPECT_EQ(output.dtype, types.at(output.name).dtype) << output.name;
  }
  EXPECT_THAT(out.metadata, ::testing::IsSupersetOf(in.metadata));
  for (const auto& [domain, version] : in.opsets) {
    EXPECT_TRUE(domain.empty() || out.Opset(domain) == version) << domain;
  }
}

// Of values, nodes and what subgraphs hold.
inline std::set<std::string> NamesOf(const Model& model) {
  std::set<std::string> names;
  const auto add = [&](const Graph& graph) {
    for (const auto& [name, initializer] : graph.initializers) names.insert(name);
    for (const ValueInfo& input : graph.inputs) names.insert(input.name);
  };
  add(model.graph);
  ForEachNode(model.graph, [&](const Node& node) {
    names.insert(node.name);
    names.insert(node.outputs.begin(), node.outputs.end());
    for (const GraphPtr& graph : SubgraphsOf(node)) add(*graph);
  });
  return names;
}

inline void ExpectUniqueNames(const Model& model) {
  std::set<std::string> names;
  ForEachNode(model.graph, [&](const Node& node) {
    EXPECT_TRUE(node.name.empty() || names.insert(node.name).second) << "twice: " << node.name;
  });
}

// Every node that the pass is about is in the report, changed or skipped with a reason.
inline void ExpectReported(const Model& in, const std::string& pass, const Json& report) {
  static const std::vector<std::string> kWeighted = {"Conv", "ConvTranspose", "Gemm", "MatMul",
                                                     "LSTM", "GRU",           "RNN"};
  static const std::map<std::string, std::vector<std::string>> kAbout = {
      {"fix_shapes", {}},
      {"fold_constants", {}},
      {"remove_identities", {"Identity", "Dropout"}},
      {"fuse_patterns", {}},
      {"strip_notes", {}},
      {"fold_batch_norm", {"BatchNormalization"}},
      {"magnitude_prune", kWeighted},
      {"second_order_prune", kWeighted},
      {"channel_prune", kWeighted},
      {"quantize_int8", kWeighted},
      {"quantize_dynamic", kWeighted},
      {"quantize_weights", kWeighted},
      {"cast_fp16", {"Conv", "ConvTranspose", "Gemm", "MatMul", "Mul", "Add", "Resize", "Exp"}}};
  std::vector<std::string> told = Labels(report.at("changed"));
  for (const Json& entry : report.at("skipped")) {
    told.push_back(entry.at("node"));
    EXPECT_NE(entry.at("reason"), "") << entry;
  }
  Model seen = in;  // as the pass sees it
  InlineFunctions(seen);
  for (const std::string& label : NodesOf(seen, kAbout.at(pass))) {
    // A node without a name goes by its output, which becomes its name where that output goes.
    std::string named = label;
    if (const size_t at = named.find(" producing "); at != std::string::npos) {
      named.replace(at, std::string(" producing ").size(), " ");
    }
    EXPECT_THAT(told, ::testing::AnyOf(::testing::Contains(label), ::testing::Contains(named)));
  }
}

// Whatever the pass made of a node, a later pass still finds it, or is told that it is gone.
inline void ExpectFollowed(const Model& in, const Model& out) {
  NodeHistory history(in);
  history.Advance(out, "the pass");
  ForEachNode(in.graph, [&](const Node& node) {
    Json notes = Json::array();
    const Json followed = history.Follow({{"exclude", {NameOf(node)}}}, notes);
    for (const Json& reference : followed.at("exclude")) {
      EXPECT_NO_THROW(SelectNodes(out, {reference.get<std::string>()}, "")) << reference;
    }
    const bool is_gone = followed.at("exclude").empty();
    EXPECT_EQ(is_gone, !notes.empty() && notes[0].contains("reason")) << notes;
    EXPECT_TRUE(!is_gone || !node.op_type.starts_with("Conv")) << notes;
  });
}

}  // namespace pared
