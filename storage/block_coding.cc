#include "storage/block_coding.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace pared {
namespace {

enum Coding : uint8_t { kStored, kZstd, kBitmask, kGaps };

// What remains is entropy, which higher levels do not make less.
constexpr int kLevel = 12;
constexpr uint8_t kLongGap = 255;  // 255 common bytes, and the gap goes on

std::string Compress(std::string_view content) {
  const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(),
                                                                     &ZSTD_freeCCtx);
  PARED_CHECK(context != nullptr);
  ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kLevel);
  std::string frame(ZSTD_compressBound(content.size()), '\0');
  const size_t size =
      ZSTD_compress2(context.get(), frame.data(), frame.size(), content.data(), content.size());
  PARED_CHECK(ZSTD_isError(size) == 0);
  frame.resize(size);
  return frame;
}

std::string Decompress(const ByteReader& reader, std::string_view frame, size_t content_max) {
  const unsigned long long size = ZSTD_getFrameContentSize(frame.data(), frame.size());
  if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR) {
    reader.Fail("no zstd frame with a size");
  }
  if (size > content_max) reader.Fail("a zstd frame of more than its block holds");
  std::string content(static_cast<size_t>(size), '\0');
  const size_t done = ZSTD_decompress(content.data(), content.size(), frame.data(), frame.size());
  if (ZSTD_isError(done) != 0 || done != content.size()) reader.Fail("a zstd frame");
  return content;
}

char CommonestByte(std::string_view content) {
  std::array<size_t, 256> counts = {};
  for (const char c : content) ++counts[static_cast<unsigned char>(c)];
  return static_cast<char>(std::ranges::max_element(counts) - counts.begin());
}

// The bytes that are not the common one, and where they stand in either way.
struct Sparse {
  std::string others, bitmask, gaps;
};

Sparse Split(std::string_view content, char common) {
  Sparse sparse;
  sparse.bitmask.assign((content.size() + 7) / 8, '\0');
  size_t gap = 0;
  for (size_t i = 0; i < content.size(); ++i) {
    if (content[i] == common) {
      ++gap;
      continue;
    }
    sparse.others += content[i];
    sparse.bitmask[i / 8] = static_cast<char>(sparse.bitmask[i / 8] | 1 << i % 8);
    for (; gap >= kLongGap; gap -= kLongGap) sparse.gaps += static_cast<char>(kLongGap);
    sparse.gaps += static_cast<char>(gap);
    gap = 0;
  }
  return sparse;
}

std::string FromBitmask(const ByteReader& reader, std::string_view bitmask, std::string_view others,
                        std::string content) {
  if (bitmask.size() != (content.size() + 7) / 8) reader.Fail("a bitmask of another size");
  size_t next = 0;
  for (size_t i = 0; i < content.size(); ++i) {
    if ((bitmask[i / 8] >> i % 8 & 1) == 0) continue;
    if (next == others.size()) reader.Fail("fewer values than its bitmask has bits");
    content[i] = others[next++];
  }
  if (next != others.size()) reader.Fail("more values than its bitmask has bits");
  return content;
}

std::string FromGaps(const ByteReader& reader, std::string_view gaps, std::string_view others,
                     std::string content) {
  size_t place = 0, next = 0;
  for (const char c : gaps) {
    const auto gap = static_cast<uint8_t>(c);
    place += gap;
    if (gap == kLongGap) continue;
    if (place >= content.size() || next == others.size()) reader.Fail("a gap beyond its block");
    content[place++] = others[next++];
  }
  if (next != others.size()) reader.Fail("more values than gaps");
  return content;
}

uint32_t Checksum(std::string_view content) {
  return static_cast<uint32_t>(
      crc32_z(0, reinterpret_cast<const Bytef*>(content.data()), content.size()));
}

// What all codings of a block have before their parts, but for the coding.
std::string HeadOf(std::string_view content, char common) {
  std::string head = {common};
  AppendNumber(head, content.size(), 4);
  AppendNumber(head, Checksum(content), 4);
  return head;
}

std::string Block(Coding coding, const std::string& head, std::vector<std::string_view> parts) {
  std::string block = static_cast<char>(coding) + head;
  for (const std::string_view part : parts) {
    AppendNumber(block, part.size(), 4);
    block += part;
  }
  return block;
}

// The content of a block's parts; its size is checked by the caller.
std::string Join(ByteReader& reader, uint64_t coding, std::string content) {
  const std::string_view first = reader.Take(reader.Number(4));
  if (coding == kStored) return std::string(first);
  if (coding == kZstd) return Decompress(reader, first, content.size());
  if (coding != kBitmask && coding != kGaps) reader.Fail("a coding that this pared does not know");
  const std::string_view second = reader.Take(reader.Number(4));
  const std::string places = Decompress(reader, first, content.size());
  const std::string others = Decompress(reader, second, content.size());
  const auto join = coding == kBitmask ? FromBitmask : FromGaps;
  return join(reader, places, others, std::move(content));
}

}  // namespace

void AppendNumber(std::string& bytes, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; ++i) bytes += static_cast<char>(value >> 8 * i & 0xff);
}

void ByteReader::Fail(const std::string& what) const {
  throw Error(ErrorCode::kInvalidArgument, "is damaged: " + what, where_);
}

std::string_view ByteReader::Take(size_t size) {
  if (size > rest_.size()) Fail("it ends too early");
  const std::string_view bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

uint64_t ByteReader::Number(size_t size) {
  uint64_t value = 0;
  const std::string_view bytes = Take(size);
  for (size_t i = 0; i < size; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << 8 * i;
  }
  return value;
}

std::string EncodeBlock(std::string_view content) {
  PARED_CHECK(!content.empty());
  PARED_CHECK(content.size() <= kPackedBlockBytes);
  const char common = CommonestByte(content);
  const Sparse sparse = Split(content, common);
  const std::string head = HeadOf(content, common);
  std::string best = Block(kStored, head, {content});
  const auto offer = [&](Coding coding, std::vector<std::string_view> parts) {
    std::string block = Block(coding, head, std::move(parts));
    if (block.size() < best.size()) best = std::move(block);
  };
  offer(kZstd, {Compress(content)});
  if (4 * sparse.others.size() > 3 * content.size()) return best;  // no byte is common
  const std::string others = Compress(sparse.others);
  offer(kBitmask, {Compress(sparse.bitmask), others});
  offer(kGaps, {Compress(sparse.gaps), others});
  return best;
}

std::string DecodeBlock(ByteReader& reader, size_t content_max) {
  const uint64_t coding = reader.Number(1);
  const auto common = static_cast<char>(reader.Number(1));
  const size_t size = reader.Number(4);
  const uint64_t checksum = reader.Number(4);
  if (size == 0 || size > std::min(content_max, kPackedBlockBytes)) reader.Fail("a block's size");
  std::string content = Join(reader, coding, std::string(size, common));
  if (content.size() != size) reader.Fail("a block's size");
  if (Checksum(content) != checksum) reader.Fail("a block's checksum is wrong");
  return content;
}

}  // namespace pared
