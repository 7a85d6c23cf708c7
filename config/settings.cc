#include "config/settings.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "config/json_file.h"
#include "config/sha256.h"

namespace pared {
namespace {

[[noreturn]] void Refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

Json ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::kNotFound, "cannot read the settings file", path);
  std::ostringstream text;
  text << file.rdbuf();
  return ParseJsonOf(path, text.str());
}

// A flag's text as JSON, by the type that the field says it has.
Json ValueOf(const Json& field, const std::string& flag, const std::string& text) {
  const std::string& type = field.at("type").get_ref<const std::string&>();
  if (type == "string" || type == "strings" || type == "choice") return text;
  const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) {
    Refuse(flag, "must be " + std::string(type == "boolean" ? "true or false" : "a number") +
                     ", is \"" + text + "\"");
  }
  return value;
}

struct Flags {
  StartAction action = StartAction::kServe;
  std::optional<std::string> config;
  Json values = Json::object();
};

class FlagReader {
 public:
  explicit FlagReader(const std::vector<std::string>& arguments) : arguments_(arguments) {}

  Flags Read() {
    for (; next_ < arguments_.size(); ++next_) ReadOne(arguments_[next_]);
    return std::move(flags_);
  }

 private:
  void ReadOne(const std::string& argument) {
    if (argument == "--help" || argument == "-h") {
      flags_.action = StartAction::kHelp;
    } else if (argument == "--version") {
      flags_.action = StartAction::kVersion;
    } else if (argument == "--check-config") {
      flags_.action = StartAction::kCheckConfig;
    } else if (argument.starts_with("--")) {
      ReadFlag(argument);
    } else {
      Refuse(argument, "is no flag; --help lists them");
    }
  }

  void ReadFlag(const std::string& argument) {
    const size_t equals = argument.find('=');
    const std::string flag = argument.substr(0, equals);
    std::string name = flag.substr(2);
    std::replace(name.begin(), name.end(), '-', '_');
    if (name == "config") {
      flags_.config = TextOf(argument, equals);
      return;
    }
    for (const Json& field : fields_) {
      if (field.at("name") != name) continue;
      const Json value = ValueOf(field, flag, TextOf(argument, equals));
      if (field.at("type") == "strings") {
        flags_.values[name].push_back(value);
      } else {
        flags_.values[name] = value;
      }
      return;
    }
    RefuseUnknown(flag, name);
  }

  std::string TextOf(const std::string& argument, size_t equals) {
    if (equals != std::string::npos) return argument.substr(equals + 1);
    if (next_ + 1 == arguments_.size()) Refuse(argument, "needs a value");
    return arguments_[++next_];
  }

  [[noreturn]] void RefuseUnknown(const std::string& flag, const std::string& name) const {
    std::vector<std::string> names = {"config", "check_config", "help", "version"};
    for (const Json& field : fields_) names.push_back(field.at("name"));
    const std::string nearest = NearestName(name, names);
    Refuse(flag, nearest.empty() ? "is no flag; --help lists them"
                                 : "is no flag; did you mean --" + nearest + "?");
  }

  const std::vector<std::string>& arguments_;
  const Json fields_ = DescribeFields<Settings>();
  size_t next_ = 0;
  Flags flags_;
};

std::string RangeText(const Json& field) {
  const bool has_low = field.contains("minimum");
  const bool has_high = field.contains("maximum");
  if (has_low && has_high) {
    return field["minimum"].dump() + " to " + field["maximum"].dump() + ", ";
  }
  if (field.contains("choices")) {
    std::string choices;
    for (const Json& choice : field["choices"]) choices += choice.get<std::string>() + ", ";
    return choices;
  }
  return has_low ? "at least " + field["minimum"].dump() + ", " : "";
}

}  // namespace

void Fields(FieldVisitor& f, TokenSetting& t) {
  f.Required();
  f.Text("name", t.name, TextRule::kName, "Whose token it is.");
  f.Required();
  f.Text("sha256", t.sha256, TextRule::kName, "The token's SHA-256, 64 hexadecimal digits.");
  f.Choice("scope", t.scope, {"read", "write"}, "Whether it may only read, or also change things.");
  f.Integer("expires_ms", t.expires_ms, {0, std::numeric_limits<int64_t>::max()},
            "Not taken from then on, in milliseconds since 1970; 0 is never.");
}

void Fields(FieldVisitor& f, Settings& s) {
  f.Text("address", s.address, TextRule::kAny, "The address to listen on.");
  f.Integer("port", s.port, {0, 65'535}, "The port to listen on; 0 takes any that is free.");
  f.Text("tls_certificate", s.tls_certificate, TextRule::kAny,
         "PEM file with the certificate and those between it and its authority; with it the daemon "
         "speaks TLS 1.2 and later, and nothing else.");
  f.Text("tls_key", s.tls_key, TextRule::kAny, "PEM file with the certificate's private key.");
  f.Text("data_dir", s.data_dir, TextRule::kAny, "Holds the database, artifacts and work folders.");
  f.Text("datasets_dir", s.datasets_dir, TextRule::kAny,
         "Holds a folder for each dataset; datasets/ below data_dir where it is not given.");
  f.TextList("model_roots", s.model_roots, TextRule::kAny,
             "Folders whose models may be registered by their path.");
  f.Integer("body_bytes_max", s.body_bytes_max, {1'024, 64 << 20},
            "A longer request body is refused; models have a limit of their own.");
  f.Integer("model_bytes_max", s.model_bytes_max, {1'024, int64_t{1} << 44},
            "A longer model is refused.");
  f.Integer("upload_hours", s.upload_hours, {1, 8'760},
            "An upload that has not grown for so long, and that no model was made of, is removed.");
  f.Integer("connections_max", s.connections_max, {1, 65'536},
            "Connections beyond these are closed as they come.");
  f.Integer("idle_s", s.idle_s, {1, 3'600},
            "A connection that sends and takes nothing for so long is closed.");
  f.Integer("wait_s_max", s.wait_s_max, {0, 3'600}, "The longest ?wait= of a request.");
  f.Integer("queued_max", s.queued_max, {1, 10'000'000}, "Further jobs are refused.");
  f.List("tokens", s.tokens, kTokensMax,
         "Bearer tokens; without any, whoever reaches the address may do everything.");
  f.Integer("run_days", s.run_days, {0, 36'500},
            "Garbage collection deletes runs older than these days; 0 keeps all.");
  f.Integer(
      "cache_mb", s.cache_mb, {0, 1 << 24},
      "Results of passes are kept in so much and used again, the least recently used go first; "
      "0 keeps none.");
  f.Integer("memory_mb", s.memory_mb, {64, 1 << 24},
            "What a job may use where its spec says nothing.");
  f.Integer(
      "memory_total_mb", s.memory_total_mb, {0, 1 << 24},
      "What all jobs that run at once may use together, a job that does not fit waits and one "
      "that never will is refused; 0 is memory_mb times jobs_max.");
  f.Integer("time_s_max", s.time_s_max, {1, 31'536'000},
            "A job whose spec asks for a longer time is refused.");
  f.Integer("time_s", s.time_s, {1, 31'536'000},
            "How long a job may run where its spec says nothing.");
  f.Integer("threads", s.threads, {0, 1'024},
            "Threads of a job; 0 shares all that there are among jobs_max jobs.");
  f.Integer("tries_max", s.tries_max, {1, 100},
            "A job is failed after so many tries in a row on which the daemon or the worker was "
            "killed, and which came no further than those before them.");
  f.Integer("jobs_max", s.jobs_max, {1, 64},
            "Jobs that run at once; beyond 1 they share processors, and latencies suffer.");
  f.Flag("confine_workers", s.confine_workers,
         "Workers give up network, other programs and all files but the job's own.");
  f.Choice("log_level", s.log_level, {"debug", "info", "warning", "error"},
           "Events below it are not logged.");
}

std::filesystem::path Settings::Datasets() const {
  return datasets_dir.empty() ? std::filesystem::path(data_dir) / "datasets"
                              : std::filesystem::path(datasets_dir);
}

std::filesystem::path Settings::Database() const {
  return std::filesystem::path(data_dir) / "pared.db";
}

std::filesystem::path Settings::ArtifactsDir() const {
  return std::filesystem::path(data_dir) / "artifacts";
}

std::filesystem::path Settings::UploadsDir() const {
  return std::filesystem::path(data_dir) / "uploads";
}

std::filesystem::path Settings::WorkDir() const { return std::filesystem::path(data_dir) / "work"; }

std::filesystem::path Settings::CacheDir() const {
  return std::filesystem::path(data_dir) / "cache";
}

std::filesystem::path Settings::LogsDir() const { return std::filesystem::path(data_dir) / "logs"; }

int64_t Settings::MemoryTotalMb() const {
  return memory_total_mb == 0 ? memory_mb * jobs_max : memory_total_mb;
}

namespace {

// A digest that cannot be one would lock its owner out without a word.
void CheckTokens(const Settings& settings) {
  for (size_t i = 0; i < settings.tokens.size(); ++i) {
    if (IsSha256(settings.tokens[i].sha256)) continue;
    Refuse("/tokens/" + std::to_string(i) + "/sha256", "must be 64 hexadecimal digits, 0 to f");
  }
}

// Fields that are read once, at the start: what is open, or was counted, stays as it is.
constexpr std::array<const char*, 7> kFixed = {
    "address", "port", "data_dir", "datasets_dir", "threads", "jobs_max", "confine_workers"};

void CheckTlsPaths(const Settings& settings) {
  if (settings.tls_certificate.empty() == settings.tls_key.empty()) return;
  Refuse(settings.tls_key.empty() ? "/tls_key" : "/tls_certificate",
         "must be given too: TLS takes a certificate and its key");
}

// What no single field can tell.
void CheckSettings(const Settings& settings) {
  CheckTokens(settings);
  CheckTlsPaths(settings);
  if (settings.MemoryTotalMb() < settings.memory_mb) {
    Refuse("/memory_total_mb", "must be at least memory_mb, " + std::to_string(settings.memory_mb) +
                                   ", is " + std::to_string(settings.memory_total_mb));
  }
  if (settings.time_s > settings.time_s_max) {
    Refuse("/time_s", "must be at most time_s_max, " + std::to_string(settings.time_s_max) +
                          ", is " + std::to_string(settings.time_s));
  }
}

}  // namespace

SettingsChange MergeSettings(const Settings& now, const Settings& read) {
  const Json old_fields = WriteFields(now);
  Json fields = WriteFields(read);
  SettingsChange change;
  for (auto& [name, value] : fields.items()) {
    if (value == old_fields.at(name)) continue;
    const bool is_fixed = std::ranges::find(kFixed, name) != kFixed.end();
    (is_fixed ? change.fixed : change.changed).push_back(name);
    if (is_fixed) value = old_fields.at(name);
  }
  ReadFields(fields, "", change.settings);
  CheckSettings(change.settings);
  return change;
}

Start ReadCommandLine(const std::vector<std::string>& arguments) {
  const Flags flags = FlagReader(arguments).Read();
  Start start;
  start.action = flags.action;
  if (flags.config) ReadFields(ReadFile(*flags.config), "", start.settings);
  ReadFields(flags.values, "", start.settings);
  start.has_file = flags.config.has_value();
  CheckSettings(start.settings);
  return start;
}

std::string FlagHelp(const Json& field) {
  const std::string& name = field.at("name").get_ref<const std::string&>();
  const std::string otherwise =
      field.at("required") == true ? "required" : "default " + field.at("default").dump();
  return "  " + (name == "model" ? "MODEL" : "--" + name) + "\n      " +
         field.at("help").get<std::string>() + " (" + RangeText(field) + otherwise + ")\n";
}

std::string HelpText() {
  std::string text =
      "  --config FILE     JSON object with the fields below; flags win over it\n"
      "  --check-config    read the settings, print them and exit\n\n";
  for (const Json& field : DescribeFields<Settings>()) text += FlagHelp(field);
  return text;
}

}  // namespace pared
