#include "evaluator/sound.h"

#include <sndfile.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>

#include "base/check.h"
#include "base/error.h"

namespace pared {
namespace {

constexpr int kChannelsMax = 64;
constexpr int64_t kBlock = 4096;  // values a channel that are mixed at a time

[[noreturn]] void Refuse(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::kInvalidArgument, what, name);
}

// A file in memory, as libsndfile wants to see it.
struct Source {
  std::span<const std::byte> bytes;
  sf_count_t at = 0;
};

sf_count_t SourceLength(void* user) { return std::ssize(static_cast<Source*>(user)->bytes); }

sf_count_t SourceSeek(sf_count_t offset, int whence, void* user) {
  Source& source = *static_cast<Source*>(user);
  const sf_count_t length = std::ssize(source.bytes);
  const sf_count_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? source.at : length;
  source.at = std::clamp<sf_count_t>(base + offset, 0, length);
  return source.at;
}

sf_count_t SourceRead(void* into, sf_count_t count, void* user) {
  Source& source = *static_cast<Source*>(user);
  const sf_count_t got = std::clamp<sf_count_t>(std::ssize(source.bytes) - source.at, 0,
                                                std::max<sf_count_t>(count, 0));
  std::memcpy(into, source.bytes.data() + source.at, static_cast<size_t>(got));
  source.at += got;
  return got;
}

sf_count_t SourceWrite(const void*, sf_count_t, void*) { return 0; }
sf_count_t SourceTell(void* user) { return static_cast<Source*>(user)->at; }

// One open file. libsndfile reads dozens of formats; only the plain WAV ones get to it.
class Sound {
 public:
  Sound(std::span<const std::byte> bytes, const std::string& name) : source_{bytes, 0} {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const bool is_riff = text.starts_with("RIFF") || text.starts_with("RF64");
    if (!is_riff || text.size() < 12 || text.substr(8, 4) != "WAVE") Refuse(name, "is no WAV file");
    SF_VIRTUAL_IO io = {SourceLength, SourceSeek, SourceRead, SourceWrite, SourceTell};
    Open(io, name);
    if (info_.channels < 1 || info_.channels > kChannelsMax) {
      Refuse(name, "has " + std::to_string(info_.channels) + " channels, 1 to " +
                       std::to_string(kChannelsMax) + " are read");
    }
    constexpr std::array kKinds = {SF_FORMAT_PCM_U8, SF_FORMAT_PCM_16, SF_FORMAT_PCM_24,
                                   SF_FORMAT_PCM_32, SF_FORMAT_FLOAT,  SF_FORMAT_DOUBLE};
    if (std::ranges::find(kKinds, info_.format & SF_FORMAT_SUBMASK) == kKinds.end()) {
      throw Error(ErrorCode::kUnsupported,
                  "is compressed; write it as PCM of 16, 24 or 32 bits or as floats", name);
    }
  }

  SNDFILE* file() const { return file_.get(); }
  const SF_INFO& info() const { return info_; }

 private:
  struct Closer {
    void operator()(SNDFILE* file) const { sf_close(file); }
  };

  // Why a file does not open, libsndfile keeps in one place for all threads.
  void Open(SF_VIRTUAL_IO& io, const std::string& name) {
    static std::mutex opening;
    const std::lock_guard lock(opening);
    file_.reset(sf_open_virtual(&io, SFM_READ, &info_, &source_));
    if (file_ == nullptr) Refuse(name, std::string("is damaged: ") + sf_strerror(nullptr));
  }

  Source source_;
  SF_INFO info_{};
  std::unique_ptr<SNDFILE, Closer> file_;
};

void Mix(std::span<const float> values, size_t channels, Mixing mixing, float* into) {
  for (size_t i = 0; i < values.size() / channels; ++i) {
    const float* all = values.data() + i * channels;
    double sum = all[0];
    for (size_t c = 1; c < channels && mixing == Mixing::kMean; ++c) sum += all[c];
    into[i] =
        mixing == Mixing::kMean ? static_cast<float>(sum / static_cast<double>(channels)) : all[0];
  }
}

}  // namespace

SoundInfo ReadSoundInfo(std::span<const std::byte> bytes, const std::string& name) {
  const Sound sound(bytes, name);
  return {sound.info().frames, sound.info().samplerate, sound.info().channels};
}

std::vector<float> ReadSound(std::span<const std::byte> bytes, const std::string& name,
                             int64_t begin, int64_t count, Mixing mixing) {
  PARED_CHECK(count >= 0);
  const Sound sound(bytes, name);
  std::vector<float> mixed(static_cast<size_t>(count), 0.0f);
  const auto channels = static_cast<size_t>(sound.info().channels);
  const int64_t first = std::clamp<int64_t>(begin, 0, sound.info().frames);
  const int64_t last = std::clamp<int64_t>(begin + count, first, sound.info().frames);
  if (first == last) return mixed;
  if (sf_seek(sound.file(), first, SEEK_SET) != first) Refuse(name, "is shorter than it says");
  std::vector<float> block(static_cast<size_t>(kBlock) * channels);
  for (int64_t at = first; at < last;) {
    const int64_t wanted = std::min(kBlock, last - at);
    const int64_t got = sf_readf_float(sound.file(), block.data(), wanted);
    if (got != wanted) Refuse(name, "is shorter than it says");
    Mix({block.data(), static_cast<size_t>(got) * channels}, channels, mixing,
        mixed.data() + (at - begin));
    at += got;
  }
  return mixed;
}

}  // namespace pared
