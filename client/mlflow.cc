#include "client/mlflow.h"

#include <algorithm>
#include <map>
#include <utility>

namespace pared {
namespace {

// Letters, digits and _-./ and space are what MLflow takes in a key.
std::string KeyOf(std::string name) {
  std::ranges::replace_if(
      name,
      [](char c) {
        const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        return !is_letter && !(c >= '0' && c <= '9') && c != '_' && c != '-' && c != '.' &&
               c != '/' && c != ' ';
      },
      '_');
  return name;
}

std::string TextOf(const Json& value) {
  return value.is_string() ? value.get<std::string>() : DumpJson(value);
}

class Export {
 public:
  Export(const Json& run, const std::string& url) : run_(run), url_(url) {}

  std::vector<Json> Batches() {
    AddParams();
    AddTags();
    AddMetrics();
    if (!not_measured_.empty()) tags_["pared.not_measured"] = not_measured_;
    Shorten(params_, kMlflowParamBytesMax);
    Shorten(tags_, kMlflowTagBytesMax);
    if (!shortened_.empty()) tags_["pared.shortened"] = shortened_;
    std::vector<Json> batches;
    Cut("params", Pairs(params_), kMlflowParamsMax, batches);
    Cut("tags", Pairs(tags_), kMlflowTagsMax, batches);
    Cut("metrics", metrics_, kMlflowMetricsMax, batches);
    return batches;
  }

 private:
  void AddParams() {
    for (const char* name : {"model", "chain", "experiment"}) params_[name] = run_.value(name, "");
    const Json& steps = run_.at("steps");
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::string prefix = std::to_string(i + 1) + "." + steps[i].value("pass", "");
      params_[prefix] = "";  // a pass without options is seen too
      for (const auto& [name, value] : steps[i].items()) {
        if (name != "pass") params_[KeyOf(prefix + "." + name)] = TextOf(value);
      }
    }
    const Json lineage = run_.value("lineage", Json());
    if (lineage.is_object()) params_["seed"] = TextOf(lineage.at("seed"));
  }

  void AddTags() {
    const std::string target = url_ + "/v1/runs/" + run_.at("id").dump();
    tags_["pared.run"] = MlflowIdentity(run_, url_);
    tags_["pared.url"] = target;
    tags_["pared.job"] = run_.at("job").dump();
    if (run_.at("artifact").is_string()) {
      tags_["pared.artifact"] = target + "/model";
      tags_["pared.artifact_sha256"] = run_.value("artifact", "");
    }
    const Json lineage = run_.value("lineage", Json());
    for (const char* pointer : {"/model/sha256", "/calibration/dataset", "/calibration/sha256",
                                "/evaluation/dataset", "/evaluation/sha256", "/version"}) {
      const Json::json_pointer at(pointer);
      if (!lineage.is_object() || !lineage.contains(at) || !lineage.at(at).is_string()) continue;
      std::string name = std::string("pared") + pointer;
      std::ranges::replace(name, '/', '.');
      tags_[name] = lineage.at(at).get<std::string>();
    }
    for (const auto& [name, value] : run_.at("machine").items()) {
      tags_["pared.machine." + KeyOf(name)] = TextOf(value);
    }
    if (run_.at("error").is_object()) tags_["pared.error"] = run_.at("error").value("message", "");
    for (const auto& [name, value] : run_.at("tags").items()) tags_[KeyOf(name)] = TextOf(value);
    if (!run_.value("note", "").empty()) tags_["mlflow.note.content"] = run_.value("note", "");
  }

  void AddMetrics() {
    for (const auto& [name, value] : run_.at("metrics").items()) {
      if (!value.is_number()) {
        not_measured_ += (not_measured_.empty() ? "" : " ") + name;
        continue;
      }
      metrics_.push_back({{"key", KeyOf(name)},
                          {"value", value},
                          {"timestamp", run_.at("created_ms")},
                          {"step", 0}});
    }
  }

  void Shorten(std::map<std::string, std::string>& texts, size_t bytes_max) {
    for (auto& [key, text] : texts) {
      if (text.size() <= bytes_max) continue;
      size_t end = bytes_max - 3;  // no UTF-8 sequence is cut in two
      while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
      text = text.substr(0, end) + "...";
      shortened_ += (shortened_.empty() ? "" : " ") + key;
    }
  }

  static Json Pairs(const std::map<std::string, std::string>& texts) {
    Json pairs = Json::array();
    for (const auto& [key, text] : texts) pairs.push_back({{"key", key}, {"value", text}});
    return pairs;
  }

  static void Cut(const char* name, const Json& items, size_t count_max,
                  std::vector<Json>& batches) {
    for (size_t begin = 0; begin < items.size(); begin += count_max) {
      Json batch = Json::array();
      for (size_t i = begin; i < std::min(items.size(), begin + count_max); ++i) {
        batch.push_back(items[i]);
      }
      batches.push_back({{name, std::move(batch)}});
    }
  }

  const Json& run_;
  const std::string& url_;
  std::map<std::string, std::string> params_, tags_;
  Json metrics_ = Json::array();
  std::string not_measured_, shortened_;
};

}  // namespace

std::string MlflowIdentity(const Json& run, const std::string& url) {
  // With the time: a store that began anew counts from 1 again.
  return url + "#" + run.at("id").dump() + "@" + run.at("created_ms").dump();
}

std::vector<Json> MlflowBatches(const Json& run, const std::string& url) {
  return Export(run, url).Batches();
}

}  // namespace pared
