// The daemon's own settings: a JSON file, then flags.
//
//   pared --config=/etc/pared.json --port=0 --model_roots=/srv/models --model_roots=/home/models

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "config/fields.h"

namespace pared {

enum class TokenScope { kRead, kWrite };

struct TokenSetting {
  std::string name;    // whose it is
  std::string sha256;  // of the token: who reads the settings does not learn it
  TokenScope scope = TokenScope::kRead;
  int64_t expires_ms = 0;  // since 1970, UTC; 0: never
};

constexpr size_t kTokensMax = 1'000;

struct Settings {
  std::string address = "127.0.0.1";
  int64_t port = 8080;                   // 0: any free one
  std::string tls_certificate, tls_key;  // PEM files; both empty: no TLS
  std::string data_dir = "pared-data";   // database, artifacts, work folders
  std::string datasets_dir;              // empty: datasets/ below data_dir
  std::vector<std::string> model_roots;  // folders whose models may be registered by path

  int64_t body_bytes_max = int64_t{4} << 20;
  int64_t model_bytes_max = int64_t{8} << 30;
  int64_t upload_hours = 24;
  int64_t connections_max = 256;
  int64_t idle_s = 30;
  int64_t wait_s_max = 60;
  int64_t queued_max = 10'000;
  std::vector<TokenSetting> tokens;  // empty: everybody who reaches the address may do everything
  int64_t cache_mb = 8'192;          // of results of passes; 0: none are kept
  int64_t run_days = 0;              // garbage collection deletes older runs; 0: none

  int64_t memory_mb = 8'192;
  int64_t memory_total_mb = 0;  // of all jobs that run at once; 0: memory_mb * jobs_max
  int64_t time_s = 3'600;
  int64_t time_s_max = 604'800;
  int64_t threads = 0;
  int64_t tries_max = 5;
  int64_t jobs_max = 1;         // at once
  bool confine_workers = true;  // off: for a kernel or a debugger that cannot do with it
  LogLevel log_level = LogLevel::kInfo;

  std::filesystem::path Datasets() const;  // where datasets lie
  std::filesystem::path Database() const;  // files and folders below data_dir
  std::filesystem::path ArtifactsDir() const;
  std::filesystem::path UploadsDir() const;
  std::filesystem::path WorkDir() const;
  std::filesystem::path CacheDir() const;
  std::filesystem::path LogsDir() const;
  int64_t MemoryTotalMb() const;
};

void Fields(FieldVisitor& f, TokenSetting& t);
void Fields(FieldVisitor& f, Settings& s);

enum class StartAction { kServe, kHelp, kVersion, kCheckConfig };

struct Start {
  StartAction action = StartAction::kServe;
  Settings settings;
  bool has_file = false;  // --config was given
};

// Reads the arguments after the program's name. Flags are the fields of Settings, --name=value or
// --name value; '-' may stand for '_'; a list is given by repeating its flag. Throws
// kInvalidArgument at the flag or at the JSON Pointer in the file, kNotFound: the file is not
// there.
Start ReadCommandLine(const std::vector<std::string>& arguments);

struct SettingsChange {
  Settings settings;                 // what holds from now on
  std::vector<std::string> changed;  // fields that hold at once
  std::vector<std::string> fixed;    // fields that were changed and hold after a restart only
};

// What becomes of a daemon that runs with `now` when its command line and file say `read`. Throws
// kInvalidArgument where what holds would contradict what needs a restart.
SettingsChange MergeSettings(const Settings& now, const Settings& read);

// What --help prints of a flag, given as DescribeFields has it: its range, and its default or that
// it is required. The field "model" is an argument without a flag.
std::string FlagHelp(const Json& field);

// What --help prints of the daemon: every flag.
std::string HelpText();

}  // namespace pared
