#include "daemon/search_recorder.h"

#include <utility>

namespace pared {
namespace {

SearchRun SearchRunOf(int64_t run, const RunRecord& record) {
  const Json search = record.lineage.is_object() ? record.lineage.value("search", Json()) : Json();
  return {run, record.chain, search, Json(record.metrics), record.error};
}

std::vector<Run> RunsIn(const Store& store, JobId job) {
  RunQuery query;
  query.job = job;
  query.limit = kCandidatesMax + 1;
  return store.Runs(query);
}

}  // namespace

SearchRecorder::SearchRecorder(Store& store, Artifacts& artifacts, JobId job, WorkPlace place)
    : store_(store), artifacts_(artifacts), job_(job), place_(place), search_(place.spec, {}) {
  for (const Run& run : RunsIn(store, job)) {
    runs_.push_back(SearchRunOf(run.id, run.record));
    search_.Add(runs_.back());
    const bool is_candidate = !runs_.back().search.is_null();
    if (is_candidate && !run.record.artifact.empty()) with_model_.insert(run.id);
  }
  if (runs_.empty()) return;
  DropBeaten();
  store_.SetSearch(job_, search_.Status());
}

Json SearchRecorder::History() const {
  Json history = Json::array();
  for (const SearchRun& run : runs_) history.push_back(WriteFields(run));
  return history;
}

void SearchRecorder::Take(Json& line) {
  if (line.contains("begins")) {
    begun_ = std::move(line.at("begins"));
    line.erase("begins");
  }
  if (!line.contains("kept")) return;
  const std::string name = line.at("kept");
  line.erase("kept");
  begun_ = nullptr;
  std::optional<WorkResult> result = ReadResult(FileIn(place_.folder, name + ".json"));
  if (!result) throw Error(ErrorCode::kInternal, "the worker kept no such result", name);
  std::vector<std::filesystem::path> written;
  for (ChainResult& chain : result->runs) {
    if (chain.file.empty()) continue;
    written.push_back(FileIn(place_.folder, chain.file));
    if (!chain.tflite.empty()) written.push_back(FileIn(place_.folder, chain.tflite));
    if (!IsWanted(chain)) chain.file.clear();
  }
  for (RunRecord& record : RunsOf(*result, place_, artifacts_)) Record(std::move(record));
  for (const std::filesystem::path& file : written) {
    std::error_code ignored;  // the folder goes at the job's end, with all that is in it
    std::filesystem::remove(file, ignored);
    std::filesystem::remove(file.string() + ".data", ignored);
  }
}

// As a candidate that has ended: whether others leave room for it.
bool SearchRecorder::IsWanted(const ChainResult& chain) const {
  if (place_.spec.search->keep == KeptModels::kAll || chain.search.is_null()) return true;
  Search with = search_;
  constexpr int64_t kNew = -1;  // no run's id
  with.Add({kNew, chain.chain, chain.search, chain.metrics, chain.error});
  return with.KeptRuns().contains(kNew);
}

void SearchRecorder::Record(RunRecord record) {
  const bool has_model = !record.artifact.empty();
  const int64_t id = store_.RecordRun(job_, record);
  SearchRun run = SearchRunOf(id, record);
  if (has_model && !run.search.is_null()) with_model_.insert(id);
  runs_.push_back(run);
  search_.Add(std::move(run));
  DropBeaten();
  store_.SetSearch(job_, search_.Status());
}

// A candidate that others beat does not come back.
void SearchRecorder::DropBeaten() {
  if (place_.spec.search->keep == KeptModels::kAll) return;
  const std::set<int64_t> kept = search_.KeptRuns();
  std::erase_if(with_model_, [&](int64_t run) {
    if (kept.contains(run)) return false;
    store_.DropArtifact(run);
    return true;
  });
}

bool SearchRecorder::GoOnAfter(const Json& error, bool is_own_fault) {
  if (begun_.is_null()) return false;
  const std::string chain = begun_.at("chain");
  if (!is_own_fault && std::exchange(killed_chain_, chain) != chain) return true;
  WorkResult result;
  ChainResult& failed = result.runs.emplace_back();
  failed.chain = chain;
  failed.steps = begun_.at("steps");
  failed.search = begun_.at("search");
  failed.error = error;
  begun_ = nullptr;
  for (RunRecord& record : RunsOf(result, place_, artifacts_)) Record(std::move(record));
  return true;
}

void SearchRecorder::End(const std::string& why) {
  if (runs_.empty()) return;
  Json status = search_.Status();
  if (!why.empty()) status["ended"] = why;
  store_.SetSearch(job_, status);
}

Json SearchRecorder::FinalProgress() const {
  const Json status = search_.Status();
  const Json& best = status.at("best");
  return EndedProgress(search_.candidate_count(), best.is_null() ? Json() : best.at("chain"),
                       Json::array());
}

}  // namespace pared
