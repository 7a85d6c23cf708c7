// Runs a list of passes on a model file, for scripts that compare with other quantizers.
//
//   run_pass MODEL OUT PASSES_JSON [CALIBRATION_FOLDER|random|none] [SAMPLES] [THREADS]
//
// Types and shapes of each result must infer. Writes OUT and prints the report of each pass, one
// JSON object a line.

#include <cstdio>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "evaluator/executor.h"
#include "model/infer_shapes.h"
#include "model/onnx.h"
#include "passes/plan.h"

namespace pared {
namespace {

int Run(const std::vector<std::string>& words) {
  Model model = LoadOnnx(words.at(0));
  JobSpec spec;
  spec.calibration.dataset = words.size() > 3 ? words[3] : "random";
  spec.chains = {{"chain", ParseJson(words.at(2)).get<std::vector<Json>>()}};
  const PlanNode plan = MakePlan(spec);
  const int64_t samples = words.size() > 4 ? std::stoll(words[4]) : 8;
  const bool is_drawn = spec.calibration.dataset == "random" || spec.calibration.dataset == "none";
  const Dataset calibration = is_drawn ? Dataset::Random(model.graph.inputs, samples, 1)
                                       : Dataset::Open(spec.calibration.dataset);
  NodeHistory history(model);
  for (const PlanNode* node = &plan; !node->next.empty();) {
    node = &node->next[0];
    PassContext context;
    if (spec.calibration.dataset != "none") context.calibration = &calibration;
    context.calibration_samples = samples;
    context.scratch = std::filesystem::absolute(words.at(1)).parent_path();
    context.threads = words.size() > 5 ? std::stoll(words[5]) : 2;
    Json followed = Json::array();
    model = FollowNodes(node->step, history, followed).run(std::move(model), context);
    history.Advance(model, node->step.pass);
    if (!followed.empty()) context.report["references"] = followed;
    Verify(model);
    InferShapes(model);
    std::cout << context.report.dump() << '\n';
  }
  SaveOnnx(model, words.at(1));
  return 0;
}

}  // namespace
}  // namespace pared

int main(int count, char** words) {
  try {
    return pared::Run({words + 1, words + count});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
