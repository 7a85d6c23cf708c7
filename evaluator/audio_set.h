// The sound of a dataset: WAV files cut into frames, read when they are asked for.
//
//   {"audio": {"rate": 16000, "frame": 512, "hop": 256, "list": "files.txt"}}
//
// Frame i of a file holds the values i * hop - before to i * hop - before + frame, zeros where
// there are none. Files come from `folder` and `list` as pictures do (file_list.h); a file's class
// is that of each of its frames. docs/data.md has all fields.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "config/fields.h"
#include "evaluator/file_list.h"
#include "evaluator/sound.h"
#include "model/tensor.h"

namespace pared {

class AudioSet {
 public:
  // `json` is the manifest's "audio"; paths lie below `folder`. Reads the header of each file.
  // Throws kInvalidArgument or kNotFound at "/audio/...", the list's line, or the file.
  static AudioSet Open(const Json& json, const std::filesystem::path& folder);

  const std::string& input() const { return manifest_.input; }  // "*": the model's only one
  int64_t count() const { return files_.back().first + files_.back().frames; }
  bool has_labels() const { return has_labels_; }
  int64_t label(int64_t sample) const { return FileOf(sample).label; }

  // Of the files, in order.
  std::vector<std::filesystem::path> paths() const;
  std::vector<int64_t> labels() const;
  std::vector<int64_t> first_samples() const;

  // A frame, float: [frame], [frame, 1] or [1, frame]. Throws naming the file.
  Tensor Prepare(int64_t sample) const;

  // The manifest with all defaults filled in, as JSON text.
  std::string Settings() const;

  enum class Tail { kDrop, kPad };
  enum class AudioLayout { kNt, kNtc, kNct };
  struct Manifest {
    std::string input = "*", folder = ".", list;
    int64_t rate = 0, frame = 0, hop = 0, before = 0;
    Tail tail = Tail::kDrop;
    Mixing channels = Mixing::kMean;
    AudioLayout layout = AudioLayout::kNt;
    double gain = 1;
  };

 private:
  struct File {
    std::filesystem::path path;
    int64_t label = -1;
    int64_t length = 0;             // values
    int64_t first = 0, frames = 0;  // its first sample, and how many there are
  };
  const File& FileOf(int64_t sample) const;
  int64_t FramesOf(const File& file) const;

  Manifest manifest_;
  std::vector<File> files_;
  bool has_labels_ = false;
};

}  // namespace pared
