// Model files, named by the SHA-256 of their bytes.
//
//   FOLDER/ab/abcd.../model.onnx          and, where the model keeps tensors beside itself,
//   FOLDER/ab/abcd.../NAME.onnx.data      under the name that model.onnx refers to
//
// or, to take less room, both in FOLDER/ab/abcd.../model.packed (storage/packed.h). Besides, where
// it was asked for, the same model as TensorFlow Lite:
//
//   FOLDER/ab/abcd.../ef01....tflite      under its own SHA-256, as another version of pared may
//                                         write another file
//
// An artifact is written aside, synced and renamed into place: it is there whole or not at all, and
// never changes. What many runs produce alike is there once.

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "config/job_spec.h"

namespace pared {

// A new folder with a name of its own below `parent`, removed with all it holds at the end of the
// scope.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& parent);  // throws kUnavailable, kInternal
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

struct Artifact {
  std::string sha256;         // of model.onnx, followed by the data file's bytes where there is one
  int64_t bytes = 0;          // of both
  int64_t packed_bytes = 0;   // of model.packed, where it was asked for
  std::string tflite_sha256;  // of the TensorFlow Lite file, where one was given
};

// The files of an artifact, readable for as long as `keeper` lives.
struct OpenArtifact {
  std::filesystem::path model;
  std::optional<std::filesystem::path> data;  // nullopt: all tensors are in the model file
  std::shared_ptr<const void> keeper;
};

struct SweptArtifacts {
  int64_t count = 0, bytes = 0;
};

class Artifacts {
 public:
  // Creates the folder, and clears away what a crash left half written. Throws kInternal.
  explicit Artifacts(std::filesystem::path folder);

  // Takes `file`, and FILE.data where that exists, by hard link or by copy; and `tflite`, where it
  // is not empty: the same model as TensorFlow Lite. The files must not be written to afterwards,
  // and become read-only. Throws kInvalidArgument where one is no regular file (a symbolic link is
  // none), kUnavailable where the disk is full, kInternal.
  Artifact Put(const std::filesystem::path& file, ArtifactForm form = ArtifactForm::kOnnx,
               const std::filesystem::path& tflite = {});

  bool Has(const std::string& sha256) const;
  // An artifact's files, unpacked for the occasion where only the packed form is kept. Throws
  // kNotFound, kUnavailable.
  OpenArtifact Open(const std::string& sha256) const;
  // nullopt: it is not kept in the packed form. Throws kNotFound.
  std::optional<std::filesystem::path> PackedPath(const std::string& sha256) const;
  // nullopt: this TensorFlow Lite file is not kept of it. Throws kNotFound.
  std::optional<std::filesystem::path> TflitePath(const std::string& sha256,
                                                  const std::string& tflite_sha256) const;

  int64_t Bytes(const std::string& sha256) const;  // of both

  // Removes the artifacts that are not in `kept` and that nobody has put for `grace`.
  SweptArtifacts Sweep(const std::set<std::string>& kept, std::chrono::seconds grace, bool is_dry);

  // Where a file on its way in is written, each in a folder of its own: cleared at the next start.
  std::filesystem::path IncomingDir() const;

 private:
  std::filesystem::path Folder(const std::string& sha256) const;
  // Throws kNotFound.
  std::filesystem::path ExistingFolder(const std::string& sha256) const;
  // Moves the folder of a new artifact to its place, or its files where it lacks their form.
  void Install(const std::filesystem::path& folder, const std::filesystem::path& target);

  const std::filesystem::path folder_;
  std::mutex mutex_;  // an artifact that is put again must not be swept meanwhile
};

}  // namespace pared
