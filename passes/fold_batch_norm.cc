// Folds BatchNormalization into the convolution before it.
//
// Before:  c = Conv(x, w, b)  y = BatchNormalization(c, s, t, m, v)     After:  y = Conv(x, w', b')
// fold_affine.h says where it declines.

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
  f.TextList(
      "exclude", o.exclude, TextRule::kNodeRef,
      "Nodes to keep: BatchNormalization, or what is before it; an entry that matches nothing is "
      "an error.");
}

Model Fold(Model model, const Options& options, PassContext& context) {
  std::unordered_set<std::string> kept;  // what excluded nodes make
  for (const Node* node : SelectNodes(model, options.exclude, "exclude")) {
    kept.insert(node->outputs.begin(), node->outputs.end());
  }
  const auto keep = [&](const Node& node) {
    return kept.contains(node.inputs[0]) || kept.contains(node.outputs[0]);
  };
  if (model.ir_version < 4) DropInitializerInputs(model);  // else what was folded would stay
  context.report["changed"] = Json::array();
  context.report["skipped"] = Json::array();
  for (const FoldNote& note : FoldBatchNorm(model, keep)) {
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
    "fold_batch_norm", "Folds BatchNormalization into the convolution before it.",
    [](const Json&) { return false; }, 3);

}  // namespace pared
