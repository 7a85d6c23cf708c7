// One block of a packed file (storage/packed.h).

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace pared {

inline constexpr size_t kPackedBlockBytes = size_t{1} << 20;

// Reads numbers and texts off the front of bytes that may be damaged.
class ByteReader {
 public:
  // `where` names the file in errors.
  ByteReader(std::string_view bytes, std::string where) : rest_(bytes), where_(std::move(where)) {}

  // Both throw kInvalidArgument where fewer bytes are left.
  std::string_view Take(size_t size);
  uint64_t Number(size_t size);  // little endian
  std::string_view rest() const { return rest_; }
  void set_rest(std::string_view rest) { rest_ = rest; }

  // Throws kInvalidArgument: "is damaged: WHAT".
  [[noreturn]] void Fail(const std::string& what) const;

 private:
  std::string_view rest_;
  std::string where_;
};

void AppendNumber(std::string& bytes, uint64_t value, size_t size);

// The shortest coding of a block of 1 to kPackedBlockBytes bytes.
std::string EncodeBlock(std::string_view content);

// Takes the next block, of at most `content_max` bytes of content, and decodes it. Throws
// kInvalidArgument where it is damaged.
std::string DecodeBlock(ByteReader& reader, size_t content_max);

}  // namespace pared
