// The bodies of the attentions that ONNX Runtime contributes, in ONNX's textual syntax: made of
// ONNX's own Attention. For ComposeOp.

#pragma once

#include <string>

#include "model/graph.h"

namespace pared {

// False: an optional left out.
bool HasInput(const Node& node, size_t input);

// Throw kUnsupported where the body would not cover an input, output or attribute.
std::string PackedAttention(const Node& node);      // com.microsoft.Attention
std::string QuantizedAttention(const Node& node);   // QAttention
std::string MultiHeadAttention(const Node& node);   // queries, keys and values apart
std::string GroupQueryAttention(const Node& node);  // with a cache: decoders of language models

}  // namespace pared
