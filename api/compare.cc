// Two or more runs side by side: only what differs.

#include <algorithm>
#include <charconv>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "api/service.h"

namespace pared {
namespace {

constexpr size_t kRunsMax = 16;

// What a list's item is called, so that the same layer of two runs stands side by side even where
// one run lists more of them.
std::string KeyOf(const Json& item, size_t index) {
  if (item.is_object()) {
    for (const char* name : {"node", "name", "pass", "value", "weight"}) {
      const auto key = item.find(name);
      if (key != item.end() && key->is_string()) return key->get<std::string>();
    }
  }
  return std::to_string(index);
}

using Leaves = std::map<std::string, Json>;  // by JSON Pointer

void Flatten(const Json& json, const std::string& pointer, Leaves& leaves) {
  if (json.is_object() && !json.empty()) {
    for (const auto& [name, value] : json.items()) {
      Flatten(value, JoinPointer(pointer, name), leaves);
    }
  } else if (json.is_array() && !json.empty()) {
    std::map<std::string, size_t> seen;
    for (size_t i = 0; i < json.size(); ++i) {
      std::string key = KeyOf(json[i], i);
      const size_t before = seen[key]++;
      if (before > 0) key += "#" + std::to_string(before + 1);
      Flatten(json[i], JoinPointer(pointer, key), leaves);
    }
  } else {
    leaves[pointer] = json;
  }
}

// A layer's time differs from run to run on one machine: what is within a quarter says nothing.
constexpr double kTimeNoise = 1.25;

bool IsSame(const std::string& pointer, const Json& a, const Json& b) {
  if (!pointer.ends_with("/time_us") || !a.is_number() || !b.is_number()) return a == b;
  const double x = a.get<double>(), y = b.get<double>();
  return std::max(x, y) <= kTimeNoise * std::min(x, y);
}

Leaves LeavesOf(const Run& run) {
  Json json = RunJson(run);
  json["reports"] = run.record.reports;
  json["lineage"] = run.record.lineage;
  if (json["lineage"].is_object()) json["lineage"].erase("passes");  // which the steps say
  for (const char* name : {"id", "created_ms"}) json.erase(name);
  Leaves leaves;
  Flatten(json, "", leaves);
  return leaves;
}

std::vector<Run> RunsOf(const Service& service, const std::string& text) {
  std::vector<Run> runs;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    int64_t id = 0;
    const auto [rest, code] = std::from_chars(text.data() + begin, text.data() + end, id);
    if (code != std::errc() || rest != text.data() + end) {
      throw Error(ErrorCode::kInvalidArgument, "must be ids of runs with commas between", "?runs");
    }
    std::optional<Run> run = service.store.GetRun(id);
    if (!run) throw Error(ErrorCode::kNotFound, "there is no run " + std::to_string(id), "?runs");
    runs.push_back(*std::move(run));
    begin = end + 1;
    if (runs.size() > kRunsMax) break;
  }
  if (runs.size() >= 2 && runs.size() <= kRunsMax) return runs;
  throw Error(ErrorCode::kInvalidArgument, "must be 2 to " + std::to_string(kRunsMax) + " runs",
              "?runs");
}

}  // namespace

Response CompareRuns(const Service& service, const Request& request) {
  const std::vector<Run> runs = RunsOf(service, QueryText(request, "runs").value_or(""));
  std::vector<Leaves> all;
  Leaves pointers;
  Json ids = Json::array();
  for (const Run& run : runs) {
    ids.push_back(run.id);
    all.push_back(LeavesOf(run));
    pointers.insert(all.back().begin(), all.back().end());
  }
  Json differences = Json::array();
  for (const auto& [pointer, unused] : pointers) {
    Json values = Json::array();
    bool is_same = true;
    for (const Leaves& leaves : all) {
      const auto leaf = leaves.find(pointer);
      values.push_back(leaf == leaves.end() ? Json() : leaf->second);
      is_same = is_same && IsSame(pointer, values.front(), values.back());
    }
    if (!is_same) differences.push_back({{"at", pointer}, {"values", std::move(values)}});
  }
  const size_t same = pointers.size() - differences.size();
  return JsonResponse(
      {{"runs", std::move(ids)}, {"differences", std::move(differences)}, {"same", same}});
}

}  // namespace pared
