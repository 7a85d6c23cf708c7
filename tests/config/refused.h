// What a refused value's error is: its kind, place and message.

#pragma once

#include <string>
#include <utility>

#include "tests/testing/matchers.h"

namespace pared {

inline auto RefusedAt(const std::string& where) {
  return ThrowsError(ErrorCode::kInvalidArgument, where);
}

// `message`: the whole text, or a matcher of it.
template <class Message>
auto RefusedAt(const std::string& where, Message message) {
  return ThrowsError(ErrorCode::kInvalidArgument, where, std::move(message));
}

}  // namespace pared
