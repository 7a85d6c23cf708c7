#include "config/json_file.h"

namespace pared {

Error PlacedIn(const std::filesystem::path& file, const Error& error) {
  const std::string& where = error.where();
  const std::string folder = file.parent_path().string();
  if (!folder.empty() && where.starts_with(folder)) return error;
  const char* const joint = where.empty() ? "" : where.starts_with('/') ? "#" : ": ";
  return {error.code(), error.message(), file.string() + joint + where};
}

}  // namespace pared
