#include "base/check.h"
#include "base/error.h"
#include "storage/store.h"
#include "tests/fuzz/targets.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

// A store of one job with two runs.
struct FilledStore {
  FilledStore() {
    RunRecord baseline, run;
    baseline.experiment = run.experiment = "nightly";
    baseline.model = run.model = "m";
    baseline.chain = "baseline";
    baseline.metrics = {{"top1", 0.75}, {"size_bytes", 400}};
    baseline.steps = Json::array();
    run.chain = "int8";
    run.metrics = {{"top1", 0.5}, {"size_bytes", 100}};
    run.steps = Json::array({{{"pass", "quantize_int8"}, {"bits", 8}}});
    run.machine = {{"cpu", "some"}};
    const JobId id = store.Submit(Json::object());
    store.Claim({});
    store.Finish(id, JobState::kSucceeded, nullptr, {baseline, run});
    store.ChangeRun(2, {.tags = {{"keep", "yes"}}, .note = "a note"});
  }

  TempDir folder;
  Store store{folder / "pared.db", {}};
};

}  // namespace

void FuzzFilter(FuzzInput input) {
  static FilledStore filled;
  RunQuery query;
  query.filter = TextOf(input);
  query.limit = 10;
  try {
    const size_t found = filled.store.Runs(query).size();
    PARED_CHECK(found <= 2);
    PARED_CHECK(filled.store.CountRuns(query) == static_cast<int64_t>(found));
  } catch (const Error& error) {
    // SQL that does not parse would be kInternal.
    PARED_CHECK(error.code() == ErrorCode::kInvalidArgument);
    PARED_CHECK(error.where().starts_with("filter"));
  }
}

}  // namespace pared
