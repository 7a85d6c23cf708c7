#include "evaluator/audio_set.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"
#include "model/mapped_file.h"

namespace pared {

namespace fs = std::filesystem;

void Fields(FieldVisitor& f, AudioSet::Manifest& m) {
  f.Text("input", m.input, TextRule::kAny, "The model's input; * stands for its only one.");
  f.Text("folder", m.folder, TextRule::kAny, "Where the files lie, below the dataset's folder.");
  f.Text("list", m.list, TextRule::kAny, "A text file of lines PATH or PATH CLASS.");
  f.Required();
  f.Integer("rate", m.rate, {1, 1'000'000}, "Values a second that every file must have.");
  f.Integer("frame", m.frame, {0, 1 << 30}, "Values of a sample; 0: a file is a sample.");
  f.Integer("hop", m.hop, {0, 1 << 30}, "From one frame's start to the next; 0: a frame.");
  f.Integer("before", m.before, {0, 1 << 30}, "Zeros ahead of the first value of a file.");
  f.Choice("tail", m.tail, {"drop", "pad"},
           "What is left at the end and is no whole frame is left out, or filled up with zeros.");
  f.Choice("channels", m.channels, {"mean", "first"}, "How several channels become one.");
  f.Choice("layout", m.layout, {"nt", "ntc", "nct"}, "The order of the model's axes.");
  f.Number("gain", m.gain, {1e-6, 1e6}, "value = gain * sound, which is within [-1, 1].");
}

namespace {

constexpr std::string_view kExtensions[] = {".wav"};
// Several hours of 48 kHz: a file that is one sample must fit in memory.
constexpr int64_t kFrameMax = int64_t{1} << 30;

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, where);
}

}  // namespace

AudioSet AudioSet::Open(const Json& json, const fs::path& folder) {
  AudioSet set;
  Manifest& manifest = set.manifest_;
  ReadFields(json, "/audio", manifest);
  if (manifest.hop == 0) manifest.hop = manifest.frame;
  CheckBelow(manifest.folder, "/audio/folder");
  const fs::path files = (folder / manifest.folder).lexically_normal();
  if (!manifest.list.empty()) CheckBelow(manifest.list, "/audio/list");
  FileList list = manifest.list.empty() ? ReadFolders(files, kExtensions)
                                        : ReadFileList(folder / manifest.list);
  if (list.files.empty()) Refuse(files.string(), "holds no .wav file");
  set.has_labels_ = list.has_labels;
  int64_t first = 0;
  for (const ListedFile& listed : list.files) {
    File file = {files / listed.path, listed.label, 0, first, 0};
    const std::string name = file.path.string();
    const SoundInfo info = ReadSoundInfo(MappedFile::Open(file.path)->bytes(), name);
    if (info.rate != manifest.rate) {
      Refuse(name, "has " + std::to_string(info.rate) + " values a second, the dataset says " +
                       std::to_string(manifest.rate) + "; resample it");
    }
    file.length = info.length;
    file.frames = set.FramesOf(file);
    first += file.frames;
    set.files_.push_back(std::move(file));
  }
  return set;
}

int64_t AudioSet::FramesOf(const File& file) const {
  const int64_t length = file.length + manifest_.before;
  if (length > kFrameMax && manifest_.frame == 0) {
    Refuse(file.path.string(), "is too long for one sample; give a \"frame\"");
  }
  if (manifest_.frame == 0 && length > 0) return 1;
  if (length < manifest_.frame || length == 0) {
    if (manifest_.tail == Tail::kPad && length > 0) return 1;
    Refuse(file.path.string(), "has " + std::to_string(file.length) +
                                   " values, too few for a frame; \"tail\": \"pad\" fills it up");
  }
  const int64_t beyond = length - manifest_.frame;
  const int64_t rest = manifest_.tail == Tail::kPad && beyond % manifest_.hop != 0 ? 1 : 0;
  return beyond / manifest_.hop + 1 + rest;
}

const AudioSet::File& AudioSet::FileOf(int64_t sample) const {
  PARED_CHECK(sample >= 0 && sample < count());
  const auto after = std::ranges::upper_bound(files_, sample, {}, &File::first);
  return *std::prev(after);
}

std::vector<fs::path> AudioSet::paths() const {
  std::vector<fs::path> paths;
  for (const File& file : files_) paths.push_back(file.path);
  return paths;
}

std::vector<int64_t> AudioSet::labels() const {
  std::vector<int64_t> labels;
  for (const File& file : files_) labels.push_back(file.label);
  return labels;
}

std::vector<int64_t> AudioSet::first_samples() const {
  std::vector<int64_t> samples;
  for (const File& file : files_) samples.push_back(file.first);
  return samples;
}

Tensor AudioSet::Prepare(int64_t sample) const {
  const File& file = FileOf(sample);
  const int64_t begin = (sample - file.first) * manifest_.hop - manifest_.before;
  const int64_t count = manifest_.frame == 0 ? file.length + manifest_.before : manifest_.frame;
  std::vector<float> values = ReadSound(MappedFile::Open(file.path)->bytes(), file.path.string(),
                                        begin, count, manifest_.channels);
  if (manifest_.gain != 1) {
    const auto gain = static_cast<float>(manifest_.gain);
    for (float& value : values) value *= gain;
  }
  switch (manifest_.layout) {
    case AudioLayout::kNtc:
      return Tensor::Make<float>({count, 1}, std::move(values));
    case AudioLayout::kNct:
      return Tensor::Make<float>({1, count}, std::move(values));
    case AudioLayout::kNt:
      break;
  }
  return Tensor::Make<float>({count}, std::move(values));
}

std::string AudioSet::Settings() const { return DumpJson(WriteFields(manifest_)); }

}  // namespace pared
