// Errors of what a JSON file says name the file, too.

#pragma once

#include <filesystem>

#include "base/error.h"
#include "config/fields.h"

namespace pared {

// `error` at FILE#POINTER, a JSON Pointer being the fragment (RFC 6901, section 6), or at
// "FILE: place". One that names a file in the folder of `file` stays as it is.
Error PlacedIn(const std::filesystem::path& file, const Error& error);

// Runs `read`, whose Errors become those of PlacedIn.
template <class Read>
auto WithinFile(const std::filesystem::path& file, Read read) {
  try {
    return read();
  } catch (const Error& error) {
    throw PlacedIn(file, error);
  }
}

// Throws kInvalidArgument at the file and the place in it. `text` is what the file holds.
inline Json ParseJsonOf(const std::filesystem::path& file, std::string_view text) {
  return WithinFile(file, [&] { return ParseJson(text); });
}

}  // namespace pared
