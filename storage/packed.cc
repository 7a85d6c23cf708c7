#include "storage/packed.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>

#include "base/error.h"
#include "storage/block_coding.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "PAREDPK1";
constexpr uint64_t kNameBytesMax = 255;
// A block's header, and two parts with theirs; a part is no longer than zstd makes the worst block.
constexpr size_t kBlockBytesMax = 2 * (kPackedBlockBytes + (kPackedBlockBytes >> 6)) + 64;

// Removes what was begun unless Keep() says that it is whole.
class Begun {
 public:
  ~Begun() {
    std::error_code ignored;
    if (!is_whole_) {
      for (const fs::path& path : paths_) fs::remove(path, ignored);
    }
  }
  std::ofstream Create(const fs::path& path) {
    std::error_code ignored;  // what it means, the file will tell
    if (path.has_parent_path()) fs::create_directories(path.parent_path(), ignored);
    errno = 0;
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    if (!out) {
      throw Error(ErrorCode::kInternal, std::string("cannot be created: ") + std::strerror(errno),
                  path.string());
    }
    paths_.push_back(path);
    return out;
  }
  std::vector<fs::path> Keep() {
    is_whole_ = true;
    return paths_;
  }

 private:
  std::vector<fs::path> paths_;
  bool is_whole_ = false;
};

void Write(std::ofstream& out, std::string_view bytes, const fs::path& path) {
  if (out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()))) return;
  throw Error(ErrorCode::kUnavailable, "cannot be written: is the disk full?", path.string());
}

void Close(std::ofstream& out, const fs::path& path) {
  out.close();
  if (!out) throw Error(ErrorCode::kUnavailable, "cannot be written", path.string());
}

// Reads a packed file through a window.
class PackedReader {
 public:
  explicit PackedReader(const fs::path& path) : in_(path, std::ios::binary), bytes_("", path) {
    if (!in_) throw Error(ErrorCode::kNotFound, "cannot be opened", path.string());
  }

  // Has a whole block before it, or all that is left of the file.
  ByteReader& bytes() {
    if (bytes_.rest().size() >= kBlockBytesMax || !in_) return bytes_;
    std::string window(bytes_.rest());
    const size_t begin = window.size();
    window.resize(4 * kBlockBytesMax);
    in_.read(window.data() + begin, static_cast<std::streamsize>(window.size() - begin));
    window.resize(begin + static_cast<size_t>(in_.gcount()));
    window_ = std::move(window);
    bytes_.set_rest(window_);
    return bytes_;
  }

 private:
  std::ifstream in_;
  std::string window_;
  ByteReader bytes_;
};

void PackFile(const fs::path& file, std::ofstream& out, const fs::path& packed) {
  std::ifstream in(file, std::ios::binary);
  std::error_code error;
  uint64_t left = fs::file_size(file, error);
  if (!in || error) throw Error(ErrorCode::kNotFound, "cannot be read", file.string());
  const std::string name = file.filename();
  std::string head;
  AppendNumber(head, name.size(), 1);
  head += name;
  AppendNumber(head, left, 8);
  Write(out, head, packed);
  std::string block(kPackedBlockBytes, '\0');
  while (left > 0) {
    block.resize(std::min<uint64_t>(kPackedBlockBytes, left));
    if (!in.read(block.data(), static_cast<std::streamsize>(block.size()))) {
      throw Error(ErrorCode::kInternal, "cannot be read", file.string());
    }
    Write(out, EncodeBlock(block), packed);
    left -= block.size();
  }
}

void CheckFileName(const std::string& name, const ByteReader& reader) {
  if (!name.empty() && name != "." && name != ".." &&
      name.find_first_of(std::string_view("/\0", 2)) == std::string::npos) {
    return;
  }
  reader.Fail("a file's name is no name");
}

struct Unpacking {
  const fs::path& folder;
  int64_t bytes_left;
  Begun begun;
};

void UnpackFile(PackedReader& reader, uint64_t name_size, Unpacking& to) {
  const std::string name(reader.bytes().Take(name_size));
  CheckFileName(name, reader.bytes());
  uint64_t left = reader.bytes().Number(8);
  if (left > static_cast<uint64_t>(to.bytes_left)) {
    reader.bytes().Fail("it says that \"" + name + "\" has " + std::to_string(left) +
                        " bytes; at most " + std::to_string(to.bytes_left) + " are allowed");
  }
  to.bytes_left -= static_cast<int64_t>(left);
  const fs::path path = to.folder / name;
  std::error_code error;
  if (fs::exists(fs::symlink_status(path, error))) {
    throw Error(ErrorCode::kConflict, "exists already", path.string());
  }
  std::ofstream out = to.begun.Create(path);
  while (left > 0) {
    const std::string content = DecodeBlock(reader.bytes(), left);
    Write(out, content, path);
    left -= content.size();
  }
  Close(out, path);
}

}  // namespace

void PackFiles(const std::vector<fs::path>& files, const fs::path& packed) {
  Begun begun;
  std::ofstream out = begun.Create(packed);
  Write(out, kMagic, packed);
  for (const fs::path& file : files) {
    if (file.filename().string().size() > kNameBytesMax) {
      throw Error(ErrorCode::kInvalidArgument, "has a name of more than 255 bytes", file.string());
    }
    PackFile(file, out, packed);
  }
  Write(out, std::string_view("\0", 1), packed);
  Close(out, packed);
  begun.Keep();
}

std::vector<fs::path> UnpackFiles(const fs::path& packed, const fs::path& folder,
                                  int64_t bytes_max) {
  PackedReader reader(packed);
  if (!reader.bytes().rest().starts_with(kMagic)) {
    throw Error(ErrorCode::kInvalidArgument, "is no packed file of pared's", packed.string());
  }
  reader.bytes().Take(kMagic.size());
  Unpacking to = {folder, bytes_max, {}};
  while (const uint64_t name_size = reader.bytes().Number(1)) UnpackFile(reader, name_size, to);
  if (!reader.bytes().rest().empty()) reader.bytes().Fail("it goes on after its end");
  return to.begun.Keep();
}

}  // namespace pared
