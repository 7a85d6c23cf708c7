#include "daemon/search_recorder.h"

#include <utility>

namespace pared {
namespace {

SearchRun SearchRunOf(int64_t run, const RunRecord& record) {
  const Json search = record.lineage.is_object() ? record.lineage.value("search", Json()) : Json();
  return {run, record.chain, search, Json(record.metrics), record.error};
}

std::vector<SearchRun> RunsIn(const Store& store, JobId job) {
  RunQuery query;
  query.job = job;
  query.limit = kCandidatesMax + 1;
  std::vector<SearchRun> runs;
  for (const Run& run : store.Runs(query)) runs.push_back(SearchRunOf(run.id, run.record));
  return runs;
}

}  // namespace

SearchRecorder::SearchRecorder(Store& store, Artifacts& artifacts, JobId job, WorkPlace place)
    : store_(store),
      artifacts_(artifacts),
      job_(job),
      place_(place),
      runs_(RunsIn(store, job)),
      search_(place.spec, runs_) {
  if (!runs_.empty()) store_.SetSearch(job_, search_.Status());
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
  const auto result = ReadResult(FileIn(place_.folder, name + ".json"));
  if (!result) throw Error(ErrorCode::kInternal, "the worker kept no such result", name);
  for (RunRecord& record : RunsOf(*result, place_, artifacts_)) Record(std::move(record));
}

void SearchRecorder::Record(RunRecord record) {
  const int64_t id = store_.RecordRun(job_, record);
  SearchRun run = SearchRunOf(id, record);
  runs_.push_back(run);
  search_.Add(std::move(run));
  store_.SetSearch(job_, search_.Status());
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
