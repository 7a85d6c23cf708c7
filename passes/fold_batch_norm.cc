// Folds BatchNormalization into the convolution before it, and arithmetic by channel, which is what
// exporters decompose it to. fold_affine.h says how, and where it declines.

#include <algorithm>

#include "passes/fold_affine.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"
#include "passes/weights.h"

namespace pared {
namespace {

struct Options {
  std::vector<std::string> exclude;
};

void Fields(FieldVisitor& f, Options& o) {
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that are not folded, or into which nothing is folded; an entry that matches "
             "nothing is "
             "an error.");
}

Model Fold(Model model, const Options& options, PassContext& context) {
  std::unordered_set<std::string> kept;  // what excluded nodes make
  for (const Node* node : SelectNodes(model, options.exclude, "exclude")) {
    kept.insert(node->outputs.begin(), node->outputs.end());
  }
  const auto keep = [&](const Node& node) {
    const auto is_kept = [&](const std::string& value) { return kept.contains(value); };
    return std::ranges::any_of(node.inputs, is_kept) || std::ranges::any_of(node.outputs, is_kept);
  };
  if (model.ir_version < 4) DropInitializerInputs(model);  // else what was folded would stay
  context.report["changed"] = Json::array();
  context.report["skipped"] = Json::array();
  for (const FoldNote& note : FoldAffine(model, keep)) {
    if (note.reason.empty()) {
      context.report["changed"].push_back({{"node", note.node}});
    } else {
      context.report["skipped"].push_back({{"node", note.node}, {"reason", note.reason}});
    }
  }
  return model;
}

}  // namespace

extern const PassInfo kFoldBatchNorm = DefinePass<Options, Fold>(
    "fold_batch_norm",
    "Folds BatchNormalization into the convolution before it, and Add, Sub, Mul and Div by a "
    "constant for each channel.",
    [](const Json&) { return false; }, 4);

}  // namespace pared
