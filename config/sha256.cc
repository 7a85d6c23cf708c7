#include "config/sha256.h"

#include <openssl/evp.h>

#include <array>

#include "base/check.h"

namespace pared {

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
  std::array<unsigned char, 32> digest = {};
  const int done = EVP_DigestFinal_ex(state_->context, digest.data(), nullptr);
  PARED_CHECK(done == 1);
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (unsigned char byte : digest) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace pared
