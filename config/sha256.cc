#include "config/sha256.h"

#include <openssl/evp.h>

#include <array>
#include <fstream>
#include <vector>

#include "base/check.h"
#include "base/error.h"

namespace pared {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

constexpr size_t kDigestBytes = 32;

std::string HexOf(std::span<const unsigned char> digest) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  const int done = EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr);
  PARED_CHECK(done == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(std::span<const std::byte> bytes) {
  const int done = EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
  PARED_CHECK(done == 1);
}

std::string Sha256::Finish() {
  std::array<unsigned char, kDigestBytes> digest = {};
  const int done = EVP_DigestFinal_ex(state_->context, digest.data(), nullptr);
  PARED_CHECK(done == 1);
  return HexOf(digest);
}

std::string Sha256Of(std::string_view text) {
  Sha256 sha256;
  sha256.Update(std::as_bytes(std::span(text)));
  return sha256.Finish();
}

FileDigest Sha256OfFile(const std::filesystem::path& file) {
  Sha256 sha256;
  if (!TryAddFile(file, sha256)) throw Error(ErrorCode::kInternal, "cannot be read", file.string());
  FileDigest digest;
  digest.hex = sha256.Finish();
  std::array<unsigned char, kDigestBytes> bytes = {};
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(std::stoi(digest.hex.substr(2 * i, 2), nullptr, 16));
  }
  std::array<unsigned char, 4 * ((kDigestBytes + 2) / 3) + 1> text = {};
  const int length = EVP_EncodeBlock(text.data(), bytes.data(), static_cast<int>(bytes.size()));
  digest.base64.assign(text.begin(), text.begin() + length);
  return digest;
}

bool IsSha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

bool TryAddFile(const std::filesystem::path& file, Sha256& sha256) {
  std::ifstream stream(file, std::ios::binary);
  std::vector<char> chunk(kChunkBytes);
  while (stream) {
    stream.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    sha256.Update(std::as_bytes(std::span(chunk.data(), static_cast<size_t>(stream.gcount()))));
  }
  return stream.eof();
}

void AddFile(const std::filesystem::path& file, Sha256& sha256) {
  if (TryAddFile(file, sha256)) return;
  throw Error(ErrorCode::kNotFound, "cannot read the file", file.string());
}

}  // namespace pared
