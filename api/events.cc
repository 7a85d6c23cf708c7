// Server-sent events: the progress of one job, or of all.
//
// The store is asked again every 200 ms, and what has changed since is sent; a client that comes
// late or comes back sees the present state first.

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "api/service.h"

namespace pared {
namespace {

// A proxy closes a stream that is silent for a minute, and a peer that has gone is only noticed in
// writing.
constexpr auto kHeartbeat = std::chrono::seconds(15);

Json EventOf(const Job& job) {
  return {{"id", job.id},
          {"state", JobStateName(job.state)},
          {"tries", job.tries},
          {"progress", job.progress},
          {"error", job.error},
          {"cancel_requested", job.cancel_requested},
          {"requeues", job.requeues},
          {"requeue", job.requeue},
          {"search", job.search}};
}

// What one client has been told.
class Told {
 public:
  // The event, where it says something new.
  std::string Tell(const std::string& event, int64_t id, const Json& json) {
    std::string data = DumpJson(json);
    std::string& last = last_[id];
    if (last == data) return "";
    last = data;
    return "event: " + event + "\ndata: " + data + "\n\n";
  }
  std::string Tell(const Job& job) { return Tell("job", job.id, EventOf(job)); }

  // Of a job that will not change any more only the id is kept.
  bool HasEnded(JobId id) const { return ended_.contains(id); }
  void End(JobId id, int64_t ended_ms) {
    last_.erase(id);
    ended_[id] = ended_ms;
  }
  void ForgetEndedBefore(int64_t time_ms) {
    std::erase_if(ended_, [&](const auto& ended) { return ended.second < time_ms; });
  }

  std::string Heartbeat(const std::string& text) {
    const auto now = std::chrono::steady_clock::now();
    if (text.empty() && now - spoken_ < kHeartbeat) return "";
    spoken_ = now;
    return text.empty() ? ": still here\n\n" : text;
  }

 private:
  std::map<int64_t, std::string> last_;  // by the id of the job, or of the batch
  std::map<JobId, int64_t> ended_;
  std::chrono::steady_clock::time_point spoken_ = std::chrono::steady_clock::now();
};

Response StreamResponse(Stream stream) {
  Response response;
  response.type = "text/event-stream";
  response.headers["cache-control"] = "no-store";
  response.stream = std::move(stream);
  return response;
}

// All jobs from now on: first those that run.
class Watch {
 public:
  explicit Watch(const Store& store) : store_(store) {
    ended_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(
                    std::chrono::system_clock::now().time_since_epoch())
                    .count();
    last_ = store.LastJob();
  }

  std::string Next() {
    std::string text;
    int64_t latest_ms = ended_ms_;
    for (const Job& job : store_.Watched(last_, ended_ms_)) {
      last_ = std::max(last_, job.id);
      if (told_.HasEnded(job.id)) continue;
      text += told_.Tell(job);
      if (!HasEnded(job.state)) continue;
      const int64_t job_ms = job.finished_ms.value_or(0);
      latest_ms = std::max(latest_ms, job_ms);
      told_.End(job.id, job_ms);
    }
    // Jobs that end in the same millisecond are asked for once more and told once.
    ended_ms_ = latest_ms;
    told_.ForgetEndedBefore(ended_ms_);
    return told_.Heartbeat(text);
  }

 private:
  const Store& store_;
  JobId last_ = 0;
  int64_t ended_ms_ = 0;
  Told told_;
};

}  // namespace

Response WatchJob(const Service& service, const Request& request) {
  const JobId id = IdOf(request);
  if (!service.store.GetJob(id)) {
    throw Error(ErrorCode::kNotFound, "there is no job " + std::to_string(id), "{id}");
  }
  const auto told = std::make_shared<Told>();
  const auto is_over = std::make_shared<bool>(false);
  return StreamResponse(
      [&store = service.store, id, told, is_over]() -> std::optional<std::string> {
        if (*is_over) return std::nullopt;
        const std::optional<Job> job = store.GetJob(id);
        if (!job) return std::nullopt;
        *is_over = HasEnded(job->state);
        return told->Heartbeat(told->Tell(*job));
      });
}

Response WatchBatch(const Service& service, const Request& request) {
  const BatchId id = ExistingBatch(service, request).id;
  const auto told = std::make_shared<Told>();
  const auto is_over = std::make_shared<bool>(false);
  return StreamResponse(
      [&store = service.store, id, told, is_over]() -> std::optional<std::string> {
        if (*is_over) return std::nullopt;
        const std::optional<Batch> batch = store.GetBatch(id);
        if (!batch) return std::nullopt;
        *is_over = batch->finished_ms.has_value();
        Json json = BatchJson(*batch);
        json.erase("spec");
        return told->Heartbeat(told->Tell("batch", id, json));
      });
}

Response WatchJobs(const Service& service, const Request&) {
  const auto watch = std::make_shared<Watch>(service.store);
  return StreamResponse([watch]() -> std::optional<std::string> { return watch->Next(); });
}

}  // namespace pared
