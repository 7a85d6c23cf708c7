// Command-line arguments as the fields of an options struct.

#pragma once

#include <string>
#include <vector>

#include "config/fields.h"

namespace pared {

// `MODEL --name=value --name value ...` as the JSON of `fields`: MODEL is the field "model", a flag
// of type boolean may stand alone, '-' may stand for '_', and a list is given by repeating its
// flag. Throws kInvalidArgument at the argument.
Json ReadFlags(const std::vector<std::string>& arguments, const Json& fields);

template <class Options>
Options ReadArguments(const std::vector<std::string>& arguments) {
  Options options;
  ReadFields(ReadFlags(arguments, DescribeFields<Options>()), "", options);
  return options;
}

}  // namespace pared
