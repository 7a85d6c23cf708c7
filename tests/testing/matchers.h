// Matchers that tests of all folders share.

#pragma once

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <ostream>
#include <string>
#include <utility>

#include "base/error.h"
#include "model/tensor.h"

namespace pared {

inline void PrintTo(ErrorCode code, std::ostream* os) {
  constexpr const char* kNames[] = {"kInvalidArgument", "kNotFound", "kConflict", "kUnsupported",
                                    "kUnavailable",     "kInternal", "kCancelled"};
  *os << kNames[static_cast<size_t>(code)];
}

inline void PrintTo(const Error& error, std::ostream* os) {
  PrintTo(error.code(), os);
  *os << " at '" << error.where() << "': " << error.message();
}

inline void PrintTo(const Tensor& tensor, std::ostream* os) {
  *os << DTypeName(tensor.dtype()) << ShapeText(tensor.shape());
}

// Of a callable: it throws Error with this code and this `where`, a text or a matcher.
template <class Where>
auto ThrowsError(ErrorCode code, Where where) {
  return ::testing::Throws<Error>(
      ::testing::AllOf(::testing::Property("code", &Error::code, code),
                       ::testing::Property("where", &Error::where, where)));
}

// The same, and what the message says.
template <class Where, class Message>
auto ThrowsError(ErrorCode code, Where where, Message message) {
  return ::testing::Throws<Error>(
      ::testing::AllOf(::testing::Property("code", &Error::code, code),
                       ::testing::Property("where", &Error::where, where),
                       ::testing::Property("message", &Error::message, message)));
}

struct Tolerance {
  double absolute = 0;
  double relative = 0;  // of the expected value
};

namespace testing_internal {

template <class T>
bool AllNear(const Tensor& got, const Tensor& want, Tolerance tolerance,
             ::testing::MatchResultListener* listener) {
  const auto a = got.data<T>();
  const auto b = want.data<T>();
  for (size_t i = 0; i < a.size(); ++i) {
    const auto x = static_cast<double>(a[i]);
    const auto y = static_cast<double>(b[i]);
    const bool both_nan = std::isnan(x) && std::isnan(y);
    // Equality first: infinities differ by NaN.
    const bool near = both_nan || x == y ||
                      std::abs(x - y) <= tolerance.absolute + tolerance.relative * std::abs(y);
    if (near) continue;
    *listener << "element " << i << " is " << x << ", not " << y;
    return false;
  }
  return true;
}

}  // namespace testing_internal

// Same dtype and shape; float elements within the tolerance (NaN equals NaN), others bit for bit.
MATCHER_P2(NearTensor, expected, tolerance, "a tensor near the expected one") {
  const Tensor& got = arg;
  const Tensor& want = expected;
  if (got.dtype() != want.dtype() || got.shape() != want.shape()) {
    *result_listener << "which is " << DTypeName(got.dtype()) << ShapeText(got.shape()) << ", not "
                     << DTypeName(want.dtype()) << ShapeText(want.shape());
    return false;
  }
  if (got.dtype() == DType::kFloat32) {
    return testing_internal::AllNear<float>(got, want, tolerance, result_listener);
  }
  if (got.dtype() == DType::kFloat64) {
    return testing_internal::AllNear<double>(got, want, tolerance, result_listener);
  }
  if (got.dtype() == DType::kString) return got.strings() == want.strings();
  const auto a = got.bytes();
  const auto b = want.bytes();
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    *result_listener << "byte " << i << " is " << static_cast<int>(a[i]) << ", not "
                     << static_cast<int>(b[i]);
    return false;
  }
  return true;
}

// Same dtype, shape and bits.
MATCHER_P(SameTensor, expected, "the same tensor, bit for bit") {
  const Tensor& got = arg;
  const Tensor& want = expected;
  if (got.dtype() != want.dtype() || got.shape() != want.shape()) {
    *result_listener << "which is " << DTypeName(got.dtype()) << ShapeText(got.shape()) << ", not "
                     << DTypeName(want.dtype()) << ShapeText(want.shape());
    return false;
  }
  if (got.dtype() == DType::kString) return got.strings() == want.strings();
  return std::equal(got.bytes().begin(), got.bytes().end(), want.bytes().begin(),
                    want.bytes().end());
}

}  // namespace pared
