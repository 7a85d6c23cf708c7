#include "daemon/tflite_proof.h"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "evaluator/executor.h"
#include "evaluator/metrics.h"
#include "model/tflite.h"
#include "model/tflite_write.h"
#include "passes/tflite_form.h"

namespace pared {
namespace {

constexpr int64_t kSamplesMax = 16;
// The noise is 3 % of the signal. The same sums in another order give 100 dB and more, floats in
// place of halves 55 to 70, and codes that come out one higher or lower now and then 34 and more in
// networks of 60 layers.
constexpr double kFaithfulDb = 30;

// What a model gives for each of some samples: all its outputs.
using Outputs = std::vector<std::vector<Tensor>>;

Outputs RunSome(const Executor& executor, const EvaluateContext& data) {
  const int64_t count = SampleCount(data);
  const int64_t taken = std::min(count, kSamplesMax);
  Outputs outputs(static_cast<size_t>(taken));
  tbb::parallel_for(int64_t{0}, taken, [&](int64_t i) {
    if (data.cancelled()) throw Error(ErrorCode::kCancelled, "the comparison was cancelled");
    const int64_t sample = i * count / taken;
    outputs[static_cast<size_t>(i)] = executor.Run(data.dataset->Sample(sample, executor.inputs()));
  });
  return outputs;
}

// Of one output, over the samples.
FidelitySums SumsOf(const Outputs& expected, const Outputs& got, size_t output) {
  FidelitySums sums;
  for (size_t sample = 0; sample < expected.size(); ++sample) {
    sums.Add(ToFloats(expected[sample][output]), ToFloats(got[sample][output]));
  }
  return sums;
}

std::string Decibels(double db) {
  std::string text = std::to_string(std::round(10 * db) / 10);
  return text.substr(0, text.find('.') + 2) + " dB";
}

// Puts what the outputs that are no indices, or all where there are no others, tell into `proof`.
void Compare(const std::vector<ValueInfo>& outputs, const Outputs& expected, const Outputs& got,
             TfliteProof& proof) {
  const bool has_values = !std::ranges::all_of(outputs, HoldsIndices, &ValueInfo::dtype);
  double worst_db = 0;
  std::string worst;
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (has_values && HoldsIndices(outputs[i].dtype)) continue;
    const FidelitySums sums = SumsOf(expected, got, i);
    if (sums.has_nonfinite) {
      proof.warnings.push_back("the TensorFlow Lite file gives NaN or infinity in output " +
                               outputs[i].name + " where the ONNX model does not");
    }
    if (!worst.empty() && sums.SqnrDb() >= worst_db) continue;
    worst = outputs[i].name;
    worst_db = sums.SqnrDb();
  }
  proof.metrics["tflite_sqnr_db"] = worst_db;
  proof.report = {{"samples", expected.size()}, {"worst_output", worst}};
  if (worst_db >= kFaithfulDb) return;
  proof.warnings.push_back(
      "the TensorFlow Lite file does not compute what the ONNX model does: the SQNR of output " +
      worst + " between the two is " + Decibels(worst_db) + ", below " + Decibels(kFaithfulDb) +
      " (noise of 3 % of the signal); the other "
      "metrics are the ONNX model's");
}

// What the model gives; nullopt, and a warning: pared cannot run it.
std::optional<Outputs> RunModel(const Model& model, const EvaluateContext& data,
                                TfliteProof& proof) {
  try {
    const Executor executor(model);
    return RunSome(executor, data);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) throw;
    proof.warnings.push_back(
        "the TensorFlow Lite file was not compared with the ONNX model, for pared cannot run "
        "that: " +
        std::string(error.what()));
    return std::nullopt;
  }
}

// Throws whatever is wrong with the file.
void CheckFile(const Model& model, const std::filesystem::path& path, const EvaluateContext& data,
               const std::optional<Outputs>& expected, TfliteProof& proof) {
  const Model written = LoadTflite(path);
  if (!expected) return;
  const Executor executor(written);
  const std::vector<ValueInfo>& outputs = model.graph.outputs;
  if (executor.outputs().size() != outputs.size()) {
    throw Error(ErrorCode::kInternal, "has " + std::to_string(executor.outputs().size()) +
                                          " outputs, the model " + std::to_string(outputs.size()));
  }
  Compare(outputs, *expected, RunSome(executor, data), proof);
}

}  // namespace

TfliteProof ProveTflite(const Model& model, const std::filesystem::path& path,
                        const EvaluateContext& data) {
  TfliteProof proof;
  const std::optional<Outputs> expected = RunModel(model, data, proof);
  try {
    CheckFile(model, path, data, expected, proof);
    proof.metrics["size_tflite_bytes"] = static_cast<double>(std::filesystem::file_size(path));
  } catch (const Error& error) {
    const bool is_elsewhere =
        error.code() == ErrorCode::kCancelled || error.code() == ErrorCode::kUnavailable;
    if (is_elsewhere) throw;
    proof.error =
        Error(ErrorCode::kInternal, "the TensorFlow Lite file cannot be used: " + error.message(),
              error.where());
  }
  return proof;
}

TfliteProof WriteTflite(const Model& model, const std::filesystem::path& path,
                        const EvaluateContext& data) {
  TfliteProof refused;
  try {
    SaveTflite(TfliteForm(model, path.parent_path()), path);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnsupported) throw;
    refused.error = error;
    return refused;
  }
  TfliteProof proof = ProveTflite(model, path, data);
  // The last of a model often ends in floats, at little cost.
  const int64_t in_float = CountFloatResults(model.graph);
  if (!proof.error && in_float > 1) {
    proof.warnings.push_back(
        "the TensorFlow Lite file computes " + std::to_string(in_float) +
        " INT8 products in float, for their results have no codes, which quantize_int8 gives them "
        "with \"target\": \"tflite\"");
  }
  return proof;
}

}  // namespace pared
