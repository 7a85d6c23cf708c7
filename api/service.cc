// What a spec may name, whether the daemon is well, and what handlers share.

#include "api/service.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <utility>

#include "evaluator/dataset.h"
#include "kernels/cpu.h"
#include "passes/registry.h"
#include "storage/maintenance.h"
#include "storage/uploads.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPageMax = 1'000;
constexpr uintmax_t kFreeBytesMin = uintmax_t{64} << 20;

int64_t IntegerOf(const std::string& text, IntegerRange range, const std::string& where) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [rest, code] = std::from_chars(text.data(), end, value);
  if (code == std::errc() && rest == end && value >= range.low && value <= range.high) return value;
  std::string message = "must be an integer of at least " + std::to_string(range.low);
  if (range.high != IntegerRange{}.high) message += " and at most " + std::to_string(range.high);
  throw Error(ErrorCode::kInvalidArgument, message + ", is \"" + text + "\"", where);
}

}  // namespace

int64_t QueryInteger(const Request& request, const std::string& name, IntegerRange range,
                     int64_t absent) {
  const auto it = request.query.find(name);
  return it == request.query.end() ? absent : IntegerOf(it->second, range, "?" + name);
}

std::optional<std::string> QueryText(const Request& request, const std::string& name) {
  const auto it = request.query.find(name);
  if (it == request.query.end()) return std::nullopt;
  return it->second;
}

int64_t IdOf(const Request& request) { return IntegerOf(request.params.at("id"), {1}, "{id}"); }

int64_t LimitOf(const Request& request) {
  return QueryInteger(request, "limit", {1, kPageMax}, 100);
}

Json TimeJson(const std::optional<int64_t>& time_ms) { return time_ms ? Json(*time_ms) : Json(); }

Json Page(const char* name, Json items, int64_t limit) {
  const bool is_full = static_cast<int64_t>(items.size()) == limit;
  const Json next = is_full ? items.back().at("id") : Json();
  return {{name, std::move(items)}, {"next", next}};
}

bool HasDataset(const Service& service, const std::string& name) {
  std::error_code error;
  return IsName(name) && fs::exists(service.settings.Datasets() / name / "dataset.json", error);
}

std::vector<std::string> DatasetNames(const Service& service) {
  std::vector<std::string> names;
  std::error_code error;  // a folder that is not there holds no datasets
  for (const fs::directory_entry& entry :
       fs::directory_iterator(service.settings.Datasets(), error)) {
    const std::string name = entry.path().filename().string();
    if (HasDataset(service, name)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

Response ListPasses(const Service&, const Request&) {
  Json passes = Json::array();
  for (const PassInfo* pass : Passes()) {
    passes.push_back({{"name", pass->name},
                      {"summary", pass->summary},
                      {"version", pass->version},
                      {"options", pass->describe()}});
  }
  return JsonResponse({{"passes", std::move(passes)}});
}

Response ListDatasets(const Service& service, const Request&) {
  return JsonResponse({{"datasets", DatasetNames(service)}});
}

Response GetDataset(const Service& service, const Request& request) {
  const std::string& name = request.params.at("name");
  CheckName(name, "{name}");
  if (!HasDataset(service, name)) {
    throw Error(ErrorCode::kNotFound, "there is no such dataset", "{name}");
  }
  const Dataset dataset = Dataset::Open(service.settings.Datasets() / name);
  return JsonResponse({{"name", name},
                       {"samples", dataset.sample_count()},
                       {"has_labels", dataset.has_labels()},
                       {"sha256", dataset.Digest()}});
}

Response GetHealth(const Service&, const Request&) {
  return JsonResponse({{"status", "ok"},
                       {"version", PARED_VERSION},
                       {"isa", IsaName(SelectedIsa())},
                       {"cpu", CpuName()}});
}

Response GetReady(const Service& service, const Request&) {
  service.store.CheckWritable();
  std::error_code error;
  const fs::space_info space = fs::space(service.settings.data_dir, error);
  if (!error && space.available < kFreeBytesMin) {
    throw Error(ErrorCode::kUnavailable,
                "the disk has " + std::to_string(space.available >> 20) + " MB left");
  }
  return JsonResponse({{"status", "ready"}});
}

Response PostGc(const Service& service, const Request& request) {
  const bool is_dry = QueryInteger(request, "dry", {0, 1}, 0) == 1;
  const int64_t run_days =
      QueryInteger(request, "run_days", {0, 36'500}, service.settings.run_days);
  const Garbage garbage = CollectGarbage(service.store, service.artifacts,
                                         {.run_days = run_days,
                                          .is_dry = is_dry,
                                          .cache_dir = service.settings.CacheDir(),
                                          .cache_bytes_max = service.settings.cache_mb << 20,
                                          .logs_dir = service.settings.LogsDir()});
  const auto upload_age = std::chrono::hours(service.settings.upload_hours);
  const int64_t uploads = Uploads(service.settings.UploadsDir()).Sweep(upload_age, is_dry);
  return JsonResponse({{"runs", garbage.runs},
                       {"uploads", uploads},
                       {"artifacts", garbage.artifacts},
                       {"bytes", garbage.bytes},
                       {"cache_entries", garbage.cache_entries},
                       {"cache_bytes", garbage.cache_bytes},
                       {"logs", garbage.logs},
                       {"dry", is_dry}});
}

Response GetMetrics(const Service& service, const Request&) {
  const StoreCounts counts = service.store.Counts();
  Response response;
  response.type = "text/plain; version=0.0.4; charset=utf-8";
  std::string& text = response.body;
  text = "# HELP pared_info Version and instruction set, always 1.\n# TYPE pared_info gauge\n";
  text += "pared_info{version=\"" PARED_VERSION "\",isa=\"" + std::string(IsaName(SelectedIsa())) +
          "\"} 1\n";
  text += "# HELP pared_jobs Jobs by state.\n# TYPE pared_jobs gauge\n";
  for (const auto& [state, count] : counts.jobs) {
    text += "pared_jobs{state=\"" + std::string(JobStateName(state)) + "\"} " +
            std::to_string(count) + "\n";
  }
  text += "# HELP pared_runs Recorded runs.\n# TYPE pared_runs gauge\npared_runs " +
          std::to_string(counts.runs) + "\n";
  text += "# HELP pared_models Registered models.\n# TYPE pared_models gauge\npared_models " +
          std::to_string(counts.models) + "\n";
  return response;
}

}  // namespace pared
