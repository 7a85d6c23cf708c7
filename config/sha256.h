// SHA-256, by which artifacts, datasets and tokens are known.

#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace pared {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(std::span<const std::byte> bytes);
  // The digest of all updates as 64 hexadecimal digits. Ends the use of this object.
  std::string Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Of a text's bytes, as 64 hexadecimal digits.
std::string Sha256Of(std::string_view text);

// Of a file's bytes: as 64 hexadecimal digits, and as RFC 9530 writes it in Content-Digest.
struct FileDigest {
  std::string hex, base64;
};

// Throws kInternal: the file cannot be read.
FileDigest Sha256OfFile(const std::filesystem::path& file);

// Whether the text is 64 hexadecimal digits, 0 to f.
bool IsSha256(const std::string& text);

// Adds the bytes of a file. Throws kNotFound where it cannot be read.
void AddFile(const std::filesystem::path& file, Sha256& sha256);
// The same; false: it cannot be read to its end.
bool TryAddFile(const std::filesystem::path& file, Sha256& sha256);

}  // namespace pared
