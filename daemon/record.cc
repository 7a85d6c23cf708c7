#include "daemon/record.h"

#include <fstream>
#include <iterator>
#include <map>
#include <utility>

#include "base/error.h"
#include "daemon/lineage.h"

namespace pared {
namespace {

constexpr size_t kResultBytesMax = size_t{64} << 20;

std::map<std::string, double> MetricsOf(const Json& json) {
  std::map<std::string, double> metrics;
  for (const auto& [name, value] : json.items()) {
    if (value.is_number()) metrics[name] = value.get<double>();
  }
  return metrics;
}

// By what a candidate is found: tags.search = "p-int8", tags.magnitude_prune.sparsity = "0.8".
std::map<std::string, std::string> TagsOf(const Json& search) {
  if (search.is_null()) return {};
  std::map<std::string, std::string> tags = {{"search", search.at("from")}};
  for (const auto& [name, value] : search.at("choice").items()) {
    tags[name] = (value.is_string() ? value.get<std::string>() : DumpJson(value)).substr(0, 4096);
  }
  return tags;
}

// The worker's account of one chain.
RunRecord RecordOf(const ChainResult& chain) {
  RunRecord record;
  record.chain = chain.chain;
  record.steps = chain.steps;
  record.reports = chain.reports;
  record.error = chain.error;
  record.metrics = MetricsOf(chain.metrics);
  record.tags = TagsOf(chain.search);
  return record;
}

// The chain's files move in; the baseline's is there already.
void KeepFiles(const ChainResult& chain, const WorkPlace& place, Artifacts& artifacts,
               RunRecord& record) {
  if (chain.file.empty()) return;
  const std::filesystem::path tflite =
      chain.tflite.empty() ? std::filesystem::path() : FileIn(place.folder, chain.tflite);
  const Artifact artifact =
      artifacts.Put(FileIn(place.folder, chain.file), place.spec.artifact, tflite);
  record.artifact = artifact.sha256;
  if (artifact.packed_bytes > 0) {
    record.metrics["size_packed_bytes"] = static_cast<double>(artifact.packed_bytes);
  }
  if (!artifact.tflite_sha256.empty()) record.lineage["tflite_sha256"] = artifact.tflite_sha256;
}

}  // namespace

std::filesystem::path FileIn(const std::filesystem::path& folder, const std::string& file) {
  const std::filesystem::path name(file);
  if (name.filename() != name || file == "." || file == "..") {
    throw Error(ErrorCode::kInternal, "the worker named a file outside its folder", file);
  }
  return folder / name;
}

std::optional<WorkResult> ReadResult(const std::filesystem::path& path) {
  std::error_code absent;
  const auto size = std::filesystem::file_size(path, absent);
  if (absent) return std::nullopt;
  if (size > kResultBytesMax) {
    throw Error(ErrorCode::kInternal, "the worker's result is too long", path.string());
  }
  std::ifstream in(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  WorkResult result;
  ReadFields(ParseJson(text), "", result);
  return result;
}

std::vector<RunRecord> RunsOf(const WorkResult& result, const WorkPlace& place,
                              Artifacts& artifacts) {
  std::vector<RunRecord> runs;
  for (const ChainResult& chain : result.runs) {
    RunRecord record = RecordOf(chain);
    record.experiment = place.spec.experiment;
    record.model = place.spec.model;
    record.machine = result.machine;
    record.lineage = LineageOf(place.spec, place.model_sha256, chain.steps, result);
    if (!chain.search.is_null()) record.lineage["search"] = chain.search;
    if (chain.chain == "baseline") record.artifact = place.model_sha256;
    KeepFiles(chain, place, artifacts, record);
    runs.push_back(std::move(record));
  }
  return runs;
}

}  // namespace pared
