#include "daemon/work_order.h"

#include "config/job_spec.h"
#include "config/search_spec.h"

namespace pared {
namespace {

constexpr size_t kRunsMax = kChainsMax + 1;
constexpr size_t kHistoryMax = kCandidatesMax + 1;

}  // namespace

void Fields(FieldVisitor& f, WorkOrder& order) {
  f.Required();
  f.Raw("spec", order.spec, "The job's spec.");
  f.Required();
  f.Text("model", order.model, TextRule::kAny, "The ONNX file.");
  f.Text("calibration", order.calibration, TextRule::kAny, "The calibration dataset's folder.");
  f.Text("evaluation", order.evaluation, TextRule::kAny, "The evaluation dataset's folder.");
  f.Text("cache", order.cache, TextRule::kAny, "Where results of passes are kept.");
  f.Integer("cache_mb", order.cache_mb, {0, 1 << 24}, "A longer result is not kept.");
  f.Integer("threads", order.threads, {1, 1024}, "Threads of the flow graph and of passes.");
  f.Integer("memory_mb", order.memory_mb, {0, 1 << 24}, "The limit it runs under; 0: none.");
  f.Flag("confine", order.confine, "Give up all rights that the work does not need.");
  f.RawList("history", order.history, kHistoryMax, "What a search has tried already.");
}

void Fields(FieldVisitor& f, ChainResult& result) {
  f.Required();
  f.Text("chain", result.chain, TextRule::kName, "The chain's name.");
  f.Text("file", result.file, TextRule::kAny, "The model's file in the folder.");
  f.Text("tflite", result.tflite, TextRule::kAny, "Its TensorFlow Lite file there.");
  f.Raw("steps", result.steps, "The passes with all their options.");
  f.Raw("reports", result.reports, "What the passes and the evaluation said.");
  f.Raw("metrics", result.metrics, "Metric name to number.");
  f.Raw("error", result.error, "Why the chain failed.");
  f.Raw("search", result.search, "Of a candidate: its place in the search.");
}

void Fields(FieldVisitor& f, WorkResult& result) {
  f.List("runs", result.runs, kRunsMax, "One for each chain.");
  f.Raw("machine", result.machine, "Where it was measured.");
  f.Raw("data", result.data, "The datasets that were read, by their digests.");
  f.Flag("is_complete", result.is_complete, "Whether all chains are here, and measured.");
}

Json ErrorJson(const Error& error) {
  return {{"code", ErrorCodeName(error.code())},
          {"message", error.message()},
          {"where", error.where()}};
}

}  // namespace pared
