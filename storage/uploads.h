// Files on their way in, each known by the SHA-256 that its sender promises.
//
//   FOLDER/abcd....part   what has arrived so far: a beginning, without gaps
//   FOLDER/abcd...        all of it, and its bytes are what was promised
//
// All state is in the folder: what a dropped connection or a killed daemon leaves behind goes on
// where it stopped. Who appends holds a lock on the part (flock), so that two senders never mix.

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

namespace pared {

struct UploadState {
  int64_t bytes = 0;  // that have arrived
  bool is_whole = false;
};

// Where the next bytes of an upload go, for as long as `lock` lives.
struct OpenUpload {
  std::filesystem::path part;
  std::shared_ptr<const void> lock;
};

class Uploads {
 public:
  explicit Uploads(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // nullopt: nothing has arrived. Throws kInvalidArgument at {sha256}: that is no SHA-256.
  std::optional<UploadState> Find(const std::string& sha256) const;

  // Opens an upload for appending at `offset`; 0 begins anew. Throws kConflict: so much has not
  // arrived, or more has, or another sender is at it; kUnavailable: the disk has no room for
  // `bytes_left`.
  OpenUpload Append(const std::string& sha256, int64_t offset, int64_t bytes_left) const;

  // Ends an upload. Throws kInvalidArgument where its bytes have another SHA-256, and removes them:
  // nobody can tell which of them are wrong.
  void Finish(const std::string& sha256) const;

  // Moves a whole upload out, to `target`, or back in. Throws kNotFound.
  void MoveOut(const std::string& sha256, const std::filesystem::path& target) const;
  void MoveBack(const std::string& sha256, const std::filesystem::path& source) const;

  // Throws kNotFound; kConflict: somebody is sending it.
  void Remove(const std::string& sha256) const;

  // Removes what has not grown for `age`, dry: only counts it. Returns how many files.
  int64_t Sweep(std::chrono::seconds age, bool is_dry) const;

 private:
  std::filesystem::path WholePath(const std::string& sha256) const;
  std::filesystem::path PartPath(const std::string& sha256) const;

  const std::filesystem::path folder_;
};

}  // namespace pared
