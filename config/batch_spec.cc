#include "config/batch_spec.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "config/glob.h"

namespace pared {
namespace {

void CheckGlobs(const std::vector<std::string>& globs, const std::string& pointer) {
  for (size_t i = 0; i < globs.size(); ++i) {
    const std::string& glob = globs[i];
    if (!glob.empty() && !glob.starts_with('/')) continue;
    throw Error(ErrorCode::kInvalidArgument,
                "must be a pattern below the root, such as \"*.onnx\" or \"vision/**\", is \"" +
                    glob + "\"",
                JoinPointer(pointer, std::to_string(i)));
  }
}

// The fields of a job that a batch may give.
Json JobFields() {
  Json fields = Json::array();
  for (const Json& field : DescribeJobSpec()) {
    if (field.at("name") != "model" && field.at("name") != "model_sha256") fields.push_back(field);
  }
  return fields;
}

bool IsJobField(const std::string& name) {
  static const Json fields = JobFields();
  return std::ranges::any_of(fields, [&](const Json& field) { return field.at("name") == name; });
}

// Either side of the name of each field that a rule may give.
template <class Rule, class Visit>
void EachPatch(Rule& rule, Visit visit) {
  visit("calibration", rule.calibration);
  visit("evaluate", rule.evaluate);
  visit("limits", rule.limits);
  visit("chains", rule.chains);
  visit("search", rule.search);
}

}  // namespace

void Fields(FieldVisitor& f, BatchRule& r) {
  f.Required();
  f.TextList("models", r.models, TextRule::kAny,
             "Patterns over a model's name or its path below the root.");
  EachPatch(r, [&](const char* name, Json& value) {
    f.Raw(name, value, "As in the batch; merged into the batch's, lists replace its lists.");
  });
}

void Fields(FieldVisitor& f, Threshold& t) {
  f.Required();
  f.Text("metric", t.metric, TextRule::kAny, "The metric that is compared between two nights.");
  f.Choice("better", t.better, {"higher", "lower"}, "Which way is better.");
  f.Number("absolute", t.absolute, {0, 1e300}, "A change counts beyond absolute + relative * old.");
  f.Number("relative", t.relative, {0, 1e6}, "Likewise: 0.1 is ten percent.");
}

void Fields(FieldVisitor& f, BatchSpec& s) {
  f.Text("name", s.name, TextRule::kName,
         "The series that the batch belongs to; its nights are compared with each other.");
  f.Text("root", s.root, TextRule::kAny,
         "One of the daemon's model_roots; may be left out where there is only one.");
  f.TextList("models", s.models, TextRule::kAny,
             "Patterns over paths below the root; without '/' over file names. ** stands for any "
             "folders.");
  f.TextList("exclude", s.exclude, TextRule::kAny, "Patterns of what is left out again.");
  f.List("rules", s.rules, kRulesMax,
         "Other settings for some models; the first rule that matches a model holds.");
  f.List("thresholds", s.thresholds, kThresholdsMax,
         "From where on a metric counts as better or worse than in the last night; they replace "
         "the default ones.");
  f.Flag("force", s.force, "Run models whose last result still stands, too.");
  f.Flag("dry_run", s.dry_run, "Say what would be done, and do nothing.");
}

BatchSpec ReadBatchSpec(const Json& json) {
  BatchSpec spec;
  Json own = json;
  spec.job = Json::object();
  if (json.is_object()) {
    for (const auto& [name, value] : json.items()) {
      if (!IsJobField(name)) continue;
      spec.job[name] = value;
      own.erase(name);
    }
  }
  ReadFields(own, "", spec);
  CheckGlobs(spec.models, "/models");
  CheckGlobs(spec.exclude, "/exclude");
  for (size_t i = 0; i < spec.rules.size(); ++i) {
    CheckGlobs(spec.rules[i].models, "/rules/" + std::to_string(i) + "/models");
  }
  std::set<std::string> metrics;
  for (size_t i = 0; i < spec.thresholds.size(); ++i) {
    if (metrics.insert(spec.thresholds[i].metric).second) continue;
    throw Error(ErrorCode::kInvalidArgument, "has a threshold already",
                "/thresholds/" + std::to_string(i) + "/metric");
  }
  return spec;
}

Json WriteBatchSpec(const BatchSpec& spec) {
  Json json = WriteFields(spec);
  json.update(spec.job);
  return json;
}

Json DescribeBatchSpec() {
  Json fields = DescribeFields<BatchSpec>();
  for (Json& field : JobFields()) fields.push_back(std::move(field));
  return fields;
}

std::optional<size_t> FindRule(const BatchSpec& spec, const std::string& model,
                               const std::string& path) {
  for (size_t i = 0; i < spec.rules.size(); ++i) {
    const std::vector<std::string>& globs = spec.rules[i].models;
    if (MatchesAny(globs, model) || MatchesAny(globs, path)) return i;
  }
  return std::nullopt;
}

JobSpec JobOf(const BatchSpec& spec, std::optional<size_t> rule, const std::string& model) {
  Json job = spec.job;
  if (rule) {
    EachPatch(spec.rules[*rule], [&](const char* name, const Json& patch) {
      if (!patch.is_null()) job.merge_patch({{name, patch}});
    });
  }
  job["model"] = model;
  if (!job.contains("experiment")) job["experiment"] = spec.name;
  return ReadJobSpec(job);
}

std::string ModelNameOf(const std::string& path) {
  std::string text = path;
  if (text.size() > 5 && text.ends_with(".onnx")) text.erase(text.size() - 5);
  const size_t slash = text.rfind('/');
  if (slash != std::string::npos) {
    const std::string folder = text.substr(0, slash);
    const std::string stem = text.substr(slash + 1);
    if (folder.substr(folder.rfind('/') + 1) == stem) text = folder;
  }
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
    if (c == '/') {
      c = '.';
    } else if (!is_letter && c != '.' && c != '_') {
      c = '-';
    }
  }
  // A name begins with a letter or a digit.
  text.erase(0, text.find_first_not_of("._-"));
  return text;
}

}  // namespace pared
