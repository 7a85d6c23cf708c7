// Tensor literals of the textual syntax: {1, 2, 3}.

#pragma once

#include <string>
#include <string_view>

#include "model/tensor.h"
#include "model/text_scanner.h"

namespace pared {

// kUndefined: no type of that name.
DType DTypeOfName(std::string_view name);

// Reads "{...}" with as many elements as `shape` has.
Tensor ParseLiteral(TextScanner& scan, DType dtype, Shape shape);

// "{...}", or "{... N elements}" where there are more than 16.
std::string LiteralText(const Tensor& tensor);

}  // namespace pared
