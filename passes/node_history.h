// What became of a model's nodes while the passes of a chain rewrote it, so that options which name
// nodes hold in every pass, whatever the passes before have made of them.
//
//   Conv c, BatchNormalization b     fold_batch_norm     Conv c                 "b" now means c
//   ReduceMean m, Sub s, ... Add a   fuse_patterns       LayerNormalization a   "m" now means a
//   Identity i                       remove_identities   nothing                "i" means nothing
//
// Passes take no part in it: nodes are followed by their names, else by the values they make. A
// node that is gone is what now makes its outputs or, where these are gone too, the first values
// computed from them that are still there, with all that was not there before on the way to them.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/fields.h"
#include "model/graph.h"

namespace pared {

class NodeHistory {
 public:
  explicit NodeHistory(const Model& model);

  // The model has become `model`, by the pass (or other step) called `by`.
  void Advance(const Model& model, const std::string& by);

  // The options of a pass with those that name nodes ("exclude", "match" of "overrides") saying
  // what they mean in the model as it is now. What matches no node that there ever was stays, for
  // the pass to refuse. Appends to `notes` each reference that means other nodes than it says:
  // {"reference", "nodes": [label, ...]}, or {"reference", "reason"} where none of them is left.
  Json Follow(Json options, Json& notes) const;

 private:
  struct Version;  // the nodes and values of the model as it is
  struct Origin {
    Node node;                // as it was: name, op_type and outputs
    std::vector<size_t> now;  // nodes of `present_`
    std::string gone_by;      // where `now` is empty: what took the last one out
  };

  void AddOrigins();
  std::vector<std::string> FollowOne(const std::string& reference, Json& notes) const;

  std::shared_ptr<const Version> present_;
  std::vector<Origin> origins_;
};

}  // namespace pared
