// The boundary around readers of model files.

#pragma once

#include <protozero/exception.hpp>
#include <string>

#include "base/error.h"

namespace pared {

// Runs `read`; protozero's exceptions, and errors that do not say where, become Errors at `where`.
template <class Read>
auto ReadAt(const std::string& where, Read read) {
  try {
    return read();
  } catch (const protozero::exception& e) {
    throw Error(ErrorCode::kInvalidArgument,
                std::string("not an ONNX model, or truncated or damaged (") + e.what() + ")",
                where);
  } catch (const Error& e) {
    if (!e.where().empty()) throw;
    throw Error(e.code(), e.message(), where);
  }
}

}  // namespace pared
