// How near a quantized model is to its float model, measured on calibration samples.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "evaluator/executor.h"
#include "model/graph.h"
#include "passes/calibrate.h"
#include "passes/int8_choice.h"
#include "passes/judged_values.h"
#include "passes/known_values.h"
#include "passes/pass.h"

namespace pared {

inline constexpr double kEqualDb = 200;  // where nothing differs

// Signal and noise summed over samples.
struct Fidelity {
  double energy = 0, noise = 0;

  void Add(const Tensor& want, const Tensor& got);
  double sqnr_db() const;  // kEqualDb at most; -kEqualDb at least
};

// How near a candidate is: `sqnr_db` of the worst judged value, `output_db` of the worst output
// that judged values stand for (StoodForOutputs), which may be nearer or farther; kEqualDb: there
// is none.
struct Nearness {
  double sqnr_db = 0, output_db = kEqualDb;
};

// What helps against a collapse.
inline constexpr const char* kExcludeOrBound =
    "exclude the nodes that are most sensitive, or ask for a bound";

// Where noise is more than half the signal no accuracy survives: says so in report["warnings"].
void WarnOfCollapse(double sqnr_db, Json& report, const std::string& remedy = kExcludeOrBound);

// What a model is judged by on `samples_max` samples at most, spread over all: nothing is seen yet.
KeptValues JudgedOf(const Model& model, const PassContext& context, int64_t samples_max);

// Keeps the judged values of the float model, so that many candidates compare with one run of it.
// Where a judged value is computed for elements that were selected before it, a candidate gets the
// float model's selection (held_selections.h).
class FidelityJudge {
 public:
  // `judged`: what JudgedOf gave for the model, whose samples are run unless they were seen.
  FidelityJudge(const Model& model, PassContext& context, KeptValues judged);
  FidelityJudge(const Model& model, PassContext& context, int64_t samples_max)
      : FidelityJudge(model, context, JudgedOf(model, context, samples_max)) {}

  // Of the worst judged value: an average would hide an output that collapses. Samples whose If
  // takes another branch than in the float model are left out, half of all at most: one result of
  // another layer would hide what all others have. Where the first samples tell that it will be
  // below `least_db`, the others are not run and the result is anything below that.
  // kEqualDb where no judged value has a signal and none has noise.
  Nearness Compare(const Model& candidate, double least_db = -1e9) const;
  double SqnrDb(const Model& candidate, double least_db = -1e9) const {
    return Compare(candidate, least_db).sqnr_db;
  }

  // Runs `model`, which is as the float model, once more and keeps what it makes within, as far as
  // there is room: candidates that differ from it in a few nodes are then run from these on.
  void Remember(Model model);

  // Whether there is anything to compare: a judged value of floats that are not all zero.
  bool has_signal() const;

  // Puts report["calibration_sqnr_db"], "judged_values", those that are no outputs, and
  // "calibration_output_sqnr_db" of outputs that judged values stand for; warns of a collapse.
  // Where nothing was compared there is no figure, and a warning says so.
  void Report(const Nearness& nearness, Json& report,
              const std::string& remedy = kExcludeOrBound) const;

 private:
  using Values = std::unordered_map<std::string, Tensor>;
  struct Watched {
    Executor executor;
    std::vector<std::string> fed;  // known values, its last inputs
  };
  Watched Watching(Model model) const;
  void KeepWatched(Graph& graph) const;
  std::vector<Values> Seen(const Model& model, KeptValues& judged) const;
  void Hold(const Model& model);
  bool HasTurned(const Values& wanted, const Values& got) const;
  std::vector<Values> Watch(const Watched& watched, size_t begin, size_t count) const;

  const PassContext& context_;
  std::vector<int64_t> samples_;
  std::vector<std::string> stood_for_;  // outputs, watched besides the judged
  std::vector<std::string> judged_;
  std::vector<std::string> within_;      // of the judged, those that are no outputs
  std::vector<std::string> conditions_;  // of If, that the graph computes; among the judged
  std::vector<std::string> held_;        // selections that candidates get; among the judged
  std::shared_ptr<const std::vector<Values>> wanted_;  // per sample
  std::map<std::string, double> energies_;             // of each value, over all samples
  std::unique_ptr<const KnownValues> known_;           // null: none
};

// The sensitivity of each compute node: SQNR of its own output where only this node is INT8, its
// input being the float model's. One run over the samples answers for all nodes, since each has an
// INT8 twin that nobody reads.
std::map<std::string, double> NodeSqnrDb(const Model& model, const Int8Choice& choice,
                                         const Model& quantized, const PassContext& context);

}  // namespace pared
