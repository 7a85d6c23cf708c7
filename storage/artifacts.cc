#include "storage/artifacts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <system_error>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "config/sha256.h"
#include "storage/packed.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = size_t{1} << 20;
constexpr const char* kModelName = "model.onnx";
constexpr const char* kPackedName = "model.packed";
constexpr const char* kDataSuffix = ".data";
constexpr const char* kTfliteSuffix = ".tflite";
constexpr const char* kIncoming = "incoming";  // what is on its way in

[[noreturn]] void ThrowSystem(const std::string& doing, const fs::path& file, int error) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  throw Error(is_full ? ErrorCode::kUnavailable : ErrorCode::kInternal,
              "cannot " + doing + ": " + std::strerror(error), file.string());
}

void Check(const std::error_code& error, const std::string& doing, const fs::path& file) {
  if (error) ThrowSystem(doing, file, error.value());
}

// An open file, closed at the end of the scope.
class File {
 public:
  File(const fs::path& path, int flags, mode_t mode = 0)
      : path_(path), descriptor_(open(path.c_str(), flags | O_CLOEXEC, mode)) {
    if (descriptor_ < 0) ThrowSystem("open", path, errno);
  }
  ~File() { close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  size_t Read(std::span<std::byte> buffer) {
    while (true) {
      const ssize_t count = read(descriptor_, buffer.data(), buffer.size());
      if (count >= 0) return static_cast<size_t>(count);
      if (errno != EINTR) ThrowSystem("read", path_, errno);
    }
  }

  void Write(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ssize_t count = write(descriptor_, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) ThrowSystem("write", path_, errno);
      bytes = bytes.subspan(static_cast<size_t>(count));
    }
  }

  void Sync() {
    if (fsync(descriptor_) != 0) ThrowSystem("sync", path_, errno);
  }

 private:
  const fs::path path_;
  const int descriptor_;
};

// Makes `target` the same file as `source`, or a copy where they are on two file systems.
void LinkOrCopy(const fs::path& source, const fs::path& target) {
  if (link(source.c_str(), target.c_str()) == 0) return;
  File in(source, O_RDONLY | O_NOFOLLOW);
  File out(target, O_WRONLY | O_CREAT | O_EXCL, 0600);
  std::vector<std::byte> buffer(kChunkBytes);
  while (const size_t count = in.Read(buffer)) out.Write(std::span(buffer).first(count));
}

// Hashes, write-protects and syncs a file that is about to become part of an artifact.
int64_t Seal(const fs::path& path, Sha256& sha256) {
  File file(path, O_RDONLY | O_NOFOLLOW);
  std::vector<std::byte> buffer(kChunkBytes);
  int64_t bytes = 0;
  while (const size_t count = file.Read(buffer)) {
    sha256.Update(std::span(buffer).first(count));
    bytes += static_cast<int64_t>(count);
  }
  if (chmod(path.c_str(), 0444) != 0) ThrowSystem("write-protect", path, errno);
  file.Sync();
  return bytes;
}

// A symbolic link would let whoever wrote the folder hand out any file that the daemon can read.
void CheckRegular(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (fs::is_regular_file(status)) return;
  throw Error(ErrorCode::kInvalidArgument, "is no regular file", path.string());
}

fs::path DataNameOf(const fs::path& file) { return file.string() + kDataSuffix; }

// Takes a TensorFlow Lite file into a folder, under its digest, which it returns.
std::string AddTflite(const fs::path& file, const fs::path& folder) {
  CheckRegular(file);
  const fs::path path = folder / kTfliteSuffix;  // until its digest is known
  LinkOrCopy(file, path);
  Sha256 sha256;
  Seal(path, sha256);
  std::string digest = sha256.Finish();
  fs::rename(path, folder / (digest + kTfliteSuffix));
  return digest;
}

// Replaces the files of a folder by their packed form, and returns its size.
int64_t Pack(const fs::path& folder, const fs::path& data) {
  std::vector<fs::path> files = {folder / kModelName};
  if (!data.empty()) files.push_back(data);
  const fs::path packed = folder / kPackedName;
  PackFiles(files, packed);
  for (const fs::path& file : files) fs::remove(file);
  Sha256 unused;
  return Seal(packed, unused);
}

}  // namespace

TemporaryFolder::TemporaryFolder(const fs::path& parent) {
  std::string name = (parent / "XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) ThrowSystem("create a folder in", parent, errno);
  path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // what is left is cleared at the next start
  fs::remove_all(path_, ignored);
}

Artifacts::Artifacts(fs::path folder) : folder_(std::move(folder)) {
  std::error_code error;
  fs::remove_all(folder_ / kIncoming, error);
  Check(error, "clear", folder_ / kIncoming);
  fs::create_directories(folder_ / kIncoming, error);
  Check(error, "create", folder_ / kIncoming);
}

Artifact Artifacts::Put(const fs::path& file, ArtifactForm form, const fs::path& tflite) {
  const fs::path data = DataNameOf(file);
  std::error_code error;
  const bool has_data = fs::exists(fs::symlink_status(data, error));
  CheckRegular(file);
  if (has_data) CheckRegular(data);

  const TemporaryFolder temporary(folder_ / kIncoming);
  const fs::path model_path = temporary.path() / kModelName;
  const fs::path data_path = temporary.path() / data.filename();
  Sha256 sha256;
  LinkOrCopy(file, model_path);
  Artifact artifact;
  artifact.bytes = Seal(model_path, sha256);
  if (has_data) {
    LinkOrCopy(data, data_path);
    artifact.bytes += Seal(data_path, sha256);
  }
  artifact.sha256 = sha256.Finish();
  if (form == ArtifactForm::kPacked) {
    artifact.packed_bytes = Pack(temporary.path(), has_data ? data_path : fs::path());
  }
  if (!tflite.empty()) artifact.tflite_sha256 = AddTflite(tflite, temporary.path());
  File(temporary.path(), O_RDONLY | O_DIRECTORY).Sync();
  Install(temporary.path(), Folder(artifact.sha256));
  return artifact;
}

void Artifacts::Install(const fs::path& folder, const fs::path& target) {
  std::error_code error;
  const std::lock_guard lock(mutex_);
  fs::create_directories(target.parent_path(), error);
  Check(error, "create", target.parent_path());
  if (rename(folder.c_str(), target.c_str()) != 0) {
    // A folder that is not empty cannot be replaced: the same artifact is there, perhaps in
    // another form. The model file comes last: what has it is whole.
    if (errno != ENOTEMPTY && errno != EEXIST) ThrowSystem("create", target, errno);
    std::vector<fs::path> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      names.push_back(entry.path().filename());
    }
    std::ranges::sort(names, {}, [](const fs::path& name) { return name == kModelName; });
    for (const fs::path& name : names) {
      if (!fs::exists(target / name)) fs::rename(folder / name, target / name, error);
      Check(error, "create", target / name);
    }
    fs::last_write_time(target, fs::file_time_type::clock::now(), error);
    Check(error, "touch", target);
    File(target, O_RDONLY | O_DIRECTORY).Sync();
  }
  File(target.parent_path(), O_RDONLY | O_DIRECTORY).Sync();
}

fs::path Artifacts::Folder(const std::string& sha256) const {
  return folder_ / sha256.substr(0, 2) / sha256;
}

bool Artifacts::Has(const std::string& sha256) const {
  std::error_code error;
  return IsSha256(sha256) && fs::exists(Folder(sha256), error);
}

fs::path Artifacts::ExistingFolder(const std::string& sha256) const {
  if (Has(sha256)) return Folder(sha256);
  throw Error(ErrorCode::kNotFound, "there is no such artifact", sha256);
}

std::optional<fs::path> Artifacts::PackedPath(const std::string& sha256) const {
  const fs::path packed = ExistingFolder(sha256) / kPackedName;
  return fs::exists(packed) ? std::optional(packed) : std::nullopt;
}

std::optional<fs::path> Artifacts::TflitePath(const std::string& sha256,
                                              const std::string& tflite_sha256) const {
  const fs::path folder = ExistingFolder(sha256);
  if (!IsSha256(tflite_sha256)) return std::nullopt;
  const fs::path tflite = folder / (tflite_sha256 + kTfliteSuffix);
  return fs::exists(tflite) ? std::optional(tflite) : std::nullopt;
}

OpenArtifact Artifacts::Open(const std::string& sha256) const {
  OpenArtifact open;
  fs::path folder = ExistingFolder(sha256);
  if (!fs::exists(folder / kModelName)) {
    auto temporary = std::make_shared<TemporaryFolder>(folder_ / kIncoming);
    UnpackFiles(folder / kPackedName, temporary->path(), std::numeric_limits<int64_t>::max());
    folder = temporary->path();
    open.keeper = std::move(temporary);
  }
  open.model = folder / kModelName;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == kDataSuffix) open.data = entry.path();
  }
  return open;
}

int64_t Artifacts::Bytes(const std::string& sha256) const {
  const OpenArtifact open = Open(sha256);
  const uintmax_t bytes = fs::file_size(open.model) + (open.data ? fs::file_size(*open.data) : 0);
  return static_cast<int64_t>(bytes);
}

SweptArtifacts Artifacts::Sweep(const std::set<std::string>& kept, std::chrono::seconds grace,
                                bool is_dry) {
  SweptArtifacts swept;
  const auto before = fs::file_time_type::clock::now() - grace;
  for (const fs::directory_entry& group : fs::directory_iterator(folder_)) {
    if (!group.is_directory() || group.path().filename() == kIncoming) continue;
    for (const fs::directory_entry& entry : fs::directory_iterator(group.path())) {
      const std::string sha256 = entry.path().filename().string();
      if (!IsSha256(sha256) || kept.contains(sha256)) continue;
      const std::lock_guard lock(mutex_);
      if (entry.last_write_time() > before) continue;
      ++swept.count;
      for (const fs::directory_entry& file : fs::directory_iterator(entry.path())) {
        swept.bytes += static_cast<int64_t>(file.file_size());
      }
      if (!is_dry) fs::remove_all(entry.path());
    }
  }
  return swept;
}

fs::path Artifacts::IncomingDir() const { return folder_ / kIncoming; }

}  // namespace pared
