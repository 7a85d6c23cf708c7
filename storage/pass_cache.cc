#include "storage/pass_cache.h"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <iterator>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "config/sha256.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEntryName = "entry.json";
constexpr int64_t kEntryBytesMax = int64_t{64} << 20;

[[noreturn]] void Fail(const std::string& doing, const fs::path& path,
                       const std::error_code& error = {}) {
  const std::string why = error ? ": " + error.message() : "";
  throw Error(ErrorCode::kUnavailable, "cannot " + doing + why, path.string());
}

// nullopt: it cannot be read to its end.
std::optional<std::string> DigestOfFile(const fs::path& path) {
  Sha256 sha256;
  return TryAddFile(path, sha256) ? std::optional(sha256.Finish()) : std::nullopt;
}

// The body of entry.json where it is as it was written.
std::optional<Json> ReadBody(const fs::path& path) {
  std::error_code absent;
  const auto size = fs::file_size(path, absent);
  if (absent || static_cast<int64_t>(size) > kEntryBytesMax) return std::nullopt;
  std::ifstream in(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("body") || !json.contains("sha256")) return std::nullopt;
  if (json["sha256"] != Sha256Of(DumpJson(json["body"]))) return std::nullopt;
  return json["body"];
}

bool AreWhole(const Json& files, const fs::path& folder) {
  for (const auto& [name, sha256] : files.items()) {
    const std::optional<std::string> digest = DigestOfFile(folder / name);
    if (!digest || sha256 != *digest) return false;
  }
  return true;
}

int64_t BytesIn(const fs::path& folder) {
  int64_t bytes = 0;
  std::error_code gone;  // another worker may drop it at any time
  for (fs::directory_iterator file(folder, gone), end; !gone && file != end; file.increment(gone)) {
    const auto size = file->file_size(gone);
    if (!gone) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

void WriteEntry(const fs::path& folder, const Json& report) {
  Json files = Json::object();
  for (const fs::directory_entry& file : fs::directory_iterator(folder)) {
    const std::optional<std::string> digest = DigestOfFile(file.path());
    if (!digest) Fail("read", file.path());
    files[file.path().filename().string()] = *digest;
  }
  const Json body = {{"files", std::move(files)}, {"report", report}};
  std::ofstream out(folder / kEntryName, std::ios::binary | std::ios::trunc);
  out << DumpJson({{"sha256", Sha256Of(DumpJson(body))}, {"body", body}});
  out.close();
  if (!out) Fail("write", folder / kEntryName);
}

std::string NextNumber() {
  static std::atomic<int64_t> count = 0;
  return std::to_string(count++);
}

// Renamed first: nobody finds an entry that is half removed. The name is one of a part, so that
// what a crash leaves is cleared with the parts.
void Remove(const fs::path& entry, const std::string& owner) {
  const fs::path aside = entry.parent_path() / ("." + owner + "-" + NextNumber());
  std::error_code error;
  fs::rename(entry, aside, error);
  if (!error) fs::remove_all(aside, error);
}

// A folder removed at the end of the scope, unless it has moved.
struct Part {
  explicit Part(fs::path folder) : path(std::move(folder)) {
    std::error_code error;
    fs::remove_all(path, error);
    fs::create_directory(path, error);
    if (error) Fail("create", path, error);
  }
  ~Part() {
    std::error_code ignored;  // what is left is cleared with the job
    fs::remove_all(path, ignored);
  }
  Part(const Part&) = delete;
  Part& operator=(const Part&) = delete;
  const fs::path path;
};

bool IsPart(const fs::path& entry) { return entry.filename().string().starts_with("."); }

// Folders in `folder`; none where it is not there.
std::vector<fs::path> FoldersIn(const fs::path& folder) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_directory(error)) folders.push_back(entry->path());
  }
  return folders;
}

struct Aged {
  fs::path folder;
  fs::file_time_type used;
  int64_t bytes = 0;
};

std::vector<Aged> EntriesOf(const fs::path& folder) {
  std::vector<Aged> entries;
  for (const fs::path& model : FoldersIn(folder)) {
    for (const fs::path& entry : FoldersIn(model)) {
      std::error_code gone;
      const fs::file_time_type used = fs::last_write_time(entry, gone);
      if (!gone && !IsPart(entry)) entries.push_back({entry, used, BytesIn(entry)});
    }
  }
  return entries;
}

bool IsOf(const std::set<std::string>* models, const fs::path& folder) {
  return models == nullptr || models->contains(folder.filename().string());
}

}  // namespace

PassCache::PassCache(fs::path folder, std::string owner, int64_t bytes_max)
    : folder_(std::move(folder)), owner_(std::move(owner)), bytes_max_(bytes_max) {}

std::optional<CacheEntry> PassCache::Find(const std::string& key) const {
  const fs::path entry = folder_ / key;
  std::error_code error;
  if (!fs::exists(entry, error)) return std::nullopt;
  std::optional<Json> body = ReadBody(entry / kEntryName);
  if (!body || !AreWhole(body->at("files"), entry)) {
    Drop(key);
    return std::nullopt;
  }
  fs::last_write_time(entry, fs::file_time_type::clock::now(), error);
  return CacheEntry{entry, std::move(body->at("report"))};
}

bool PassCache::Put(const std::string& key, const Json& report,
                    const std::function<void(const fs::path& folder)>& write) const {
  const Part part(folder_ / ("." + owner_ + "-" + NextNumber()));
  write(part.path);
  WriteEntry(part.path, report);
  if (BytesIn(part.path) > bytes_max_) return false;
  std::error_code error;
  fs::rename(part.path, folder_ / key, error);
  // Another worker was faster: its entry is the same.
  if (error == std::errc::directory_not_empty || error == std::errc::file_exists) return true;
  if (error) Fail("create", folder_ / key, error);
  return true;
}

void PassCache::Drop(const std::string& key) const { Remove(folder_ / key, owner_); }

TrimmedCache TrimPassCache(const fs::path& folder, const CacheLimits& limits, bool is_dry) {
  std::vector<Aged> entries = EntriesOf(folder);
  std::ranges::sort(entries, {}, &Aged::used);
  int64_t bytes = 0;  // of those that may stay
  for (const Aged& entry : entries) {
    if (IsOf(limits.models, entry.folder.parent_path())) bytes += entry.bytes;
  }
  TrimmedCache trimmed;
  for (const Aged& entry : entries) {
    const bool is_of = IsOf(limits.models, entry.folder.parent_path());
    const bool goes = !is_of || bytes > limits.bytes_max;
    if (goes && is_of) bytes -= entry.bytes;
    (goes ? trimmed.count : trimmed.kept_count) += 1;
    (goes ? trimmed.bytes : trimmed.kept_bytes) += entry.bytes;
    if (goes && !is_dry) Remove(entry.folder, "gone");
  }
  for (const fs::path& model : FoldersIn(folder)) {
    std::error_code not_empty;
    if (!is_dry && !IsOf(limits.models, model)) fs::remove(model, not_empty);
  }
  return trimmed;
}

void ClearPassCacheParts(const fs::path& folder, const std::string& owner) {
  const std::string prefix = owner.empty() ? "." : "." + owner + "-";
  for (const fs::path& model : FoldersIn(folder)) {
    for (const fs::path& entry : FoldersIn(model)) {
      std::error_code ignored;  // it is tried again at the next start
      if (entry.filename().string().starts_with(prefix)) fs::remove_all(entry, ignored);
    }
  }
}

}  // namespace pared
