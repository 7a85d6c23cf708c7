// SHA-256, by which artifacts, datasets and tokens are known.

#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

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

}  // namespace pared
