// Files of sound, byte by byte, independent of the reader under test.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace pared {

inline std::string Little(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
  return text;
}

struct WavFormat {
  uint64_t code = 1;  // 1: PCM, 3: IEEE float
  uint64_t bits = 16, channels = 1, rate = 8000;
};

// A RIFF file as the format's specification has it.
inline std::string Wav(const WavFormat& format, const std::string& data) {
  const uint64_t block = format.channels * format.bits / 8;
  const std::string fmt = Little(format.code, 2) + Little(format.channels, 2) +
                          Little(format.rate, 4) + Little(format.rate * block, 4) +
                          Little(block, 2) + Little(format.bits, 2);
  const std::string body = "WAVEfmt " + Little(fmt.size(), 4) + fmt + "data" +
                           Little(data.size(), 4) + data + std::string(data.size() % 2, '\0');
  return "RIFF" + Little(body.size(), 4) + body;
}

inline std::string Pcm16(const std::vector<int>& values) {
  std::string data;
  for (const int value : values) data += Little(static_cast<uint64_t>(value), 2);
  return data;
}

}  // namespace pared
