// Takes out what exporters note for readers: doc strings and metadata of nodes, values and tensors.
//
// Torch's exporter writes each node's stack trace, with the paths of the machine that it ran on,
// which can be more than the weights in INT8. What a model says of itself as a whole stays.

#include "model/notes.h"
#include "passes/pass.h"
#include "passes/select_nodes.h"

namespace pared {
namespace {

struct Options {
  std::vector<std::string> exclude;
};

void Fields(FieldVisitor& f, Options& o) {
  f.TextList("exclude", o.exclude, TextRule::kNodeRef,
             "Nodes that keep theirs; an entry that matches nothing is an error.");
}

Model Strip(Model model, const Options& options, PassContext& context) {
  SelectNodes(model, options.exclude, "exclude");
  context.report["changed"] = Json::array();
  context.report["skipped"] = Json::array();
  context.report["dropped_bytes"] = DropNotes(model, SelectorOf(options.exclude));
  return model;
}

}  // namespace

extern const PassInfo kStripNotes = DefinePass<Options, Strip>(
    "strip_notes", "Takes out doc strings and metadata of nodes, values and tensors.");

}  // namespace pared
