// Sound out of WAV files: PCM of 8, 16, 24 and 32 bits and IEEE floats, in one channel.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pared {

struct SoundInfo {
  int64_t length = 0;  // values a channel
  int64_t rate = 0;    // of them a second
  int64_t channels = 0;
};

enum class Mixing { kMean, kFirst };  // of channels: their mean; the first one alone

// From the header. Throws kInvalidArgument where the bytes are no WAV file or damaged, kUnsupported
// where they are compressed; where = `name`.
SoundInfo ReadSoundInfo(std::span<const std::byte> bytes, const std::string& name);

// Values begin to begin + count, integers as value / 2^(bits - 1), so in [-1, 1). Those before the
// start and after the end are 0. Throws as ReadSoundInfo does.
std::vector<float> ReadSound(std::span<const std::byte> bytes, const std::string& name,
                             int64_t begin, int64_t count, Mixing mixing);

}  // namespace pared
