#include "daemon/commands.h"

#include <tbb/parallel_invoke.h>

#include <ostream>

#include "base/error.h"
#include "daemon/arguments.h"
#include "evaluator/dataset.h"
#include "evaluator/evaluate.h"
#include "evaluator/metrics.h"
#include "evaluator/npy.h"
#include "model/onnx.h"
#include "model/tflite.h"
#include "passes/registry.h"

namespace pared {
namespace {

constexpr int64_t kRandomSamples = 16;

struct EvaluateOptions {
  std::string model, dataset, reference, outputs;
  int64_t samples = 0;
  int64_t runs = 0;
  int64_t threads = 1;
};

void Fields(FieldVisitor& f, EvaluateOptions& o) {
  f.Required();
  f.Text("model", o.model, TextRule::kAny, "The model's file, ONNX or TensorFlow Lite.");
  f.Text("dataset", o.dataset, TextRule::kAny,
         "A dataset's folder; random values where it is not given.");
  f.Text("reference", o.reference, TextRule::kAny,
         "The model to compare with; the model itself where it is not given.");
  f.Text("outputs", o.outputs, TextRule::kAny,
         "Where the first output of each sample is written, as a .npy file.");
  f.Integer("samples", o.samples, {0, 100'000'000}, "The first so many samples; 0 takes all.");
  f.Integer("runs", o.runs, {0, 100'000}, "Timed runs; 0 measures no latency.");
  f.Integer("threads", o.threads, {1, 1024}, "Threads of a timed run.");
}

// The first outputs of all samples as one array; their shapes must agree.
Tensor Stacked(const Reference& reference) {
  Shape shape = reference.outputs.front().front().shape();
  std::vector<float> values;
  for (const std::vector<Tensor>& outputs : reference.outputs) {
    if (outputs.front().shape() != shape) {
      throw Error(ErrorCode::kUnsupported, "outputs differ in shape from sample to sample",
                  "--outputs");
    }
    const std::vector<float> floats = ToFloats(outputs.front());
    values.insert(values.end(), floats.begin(), floats.end());
  }
  shape.insert(shape.begin(), std::ssize(reference.outputs));
  return Tensor::Make<float>(std::move(shape), std::move(values));
}

void DescribeOptions(const Json& fields, std::ostream& out) {
  if (fields.empty()) {
    out << "No options.\n";
    return;
  }
  out << "| option | type | default | range | effect |\n| --- | --- | --- | --- | --- |\n";
  for (const Json& field : fields) {
    std::string range;
    if (field.contains("choices")) {
      for (const Json& choice : field["choices"]) {
        range += (range.empty() ? "" : ", ") + choice.get<std::string>();
      }
    } else if (field.contains("minimum") || field.contains("maximum")) {
      range = field.value("minimum", Json("")).dump() + " to " +
              field.value("maximum", Json("")).dump();
    }
    out << "| `" << field.at("name").get<std::string>() << "` | "
        << field.at("type").get<std::string>() << " | `" << field.value("default", Json()).dump()
        << "` | " << range << " | " << field.at("help").get<std::string>() << " |\n";
  }
}

}  // namespace

Dataset OpenDataset(const std::string& folder, const std::vector<ValueInfo>& inputs) {
  return folder.empty() ? Dataset::Random(inputs, kRandomSamples, 0) : Dataset::Open(folder);
}

void RunEvaluate(const std::vector<std::string>& arguments, std::ostream& out) {
  const auto options = ReadArguments<EvaluateOptions>(arguments);
  const Model model = LoadModel(options.model);
  const bool is_reference = options.reference.empty();
  const Model reference_model = is_reference ? model : LoadModel(options.reference);
  const Dataset dataset = OpenDataset(options.dataset, CallerInputs(reference_model.graph));
  EvaluateContext context;
  context.dataset = &dataset;
  context.samples = options.samples;
  Reference own, reference;
  Metrics metrics;
  // At once: where one is prepared on one thread, another has work for the rest.
  tbb::parallel_invoke([&] { metrics = EvaluateSize(options.model); },
                       [&] {
                         if (!is_reference) reference = RunReference(reference_model, context);
                       },
                       [&] { own = RunReference(model, context); });
  metrics.merge(EvaluateOutputs(own, is_reference ? own : reference, context));
  if (options.runs > 0) {
    metrics.merge(EvaluateLatency(options.model, context, options.runs, options.threads));
  }
  if (!options.outputs.empty()) SaveNpy(Stacked(own), options.outputs);
  out << Json{{"model", options.model},
              {"dataset", dataset.name()},
              {"samples", SampleCount(context)},
              {"metrics", metrics}}
             .dump(2)
      << "\n";
}

Json EvaluateFlags() { return DescribeFields<EvaluateOptions>(); }

void DescribePasses(std::ostream& out) {
  out << "# Passes\n\nWritten by `pared --describe-passes`.\n";
  for (const PassInfo* pass : Passes()) {
    out << "\n## " << pass->name << "\n\n" << pass->summary << "\n\n";
    DescribeOptions(pass->describe(), out);
  }
}

}  // namespace pared
