// Sequences and optionals: values that are no tensors, held where the executor holds tensors.
//
// A sequence is a Tensor of type kSequence and shape [items] whose bytes are the items themselves,
// so that copies share them as tensors share elements; operators for elements refuse it, for its
// elements have no fixed size. An optional is what it holds, or an undefined Tensor.

#pragma once

#include <span>
#include <vector>

#include "evaluator/ops.h"
#include "model/tensor.h"

namespace pared {

// No type of ONNX has this number, and none is read from a file.
inline constexpr DType kSequence = static_cast<DType>(27);

Tensor MakeSequence(std::vector<Tensor> items);
// `sequence` must be of type kSequence.
std::span<const Tensor> ItemsOf(const Tensor& sequence);
// Throws kInvalidArgument where it is none.
std::span<const Tensor> CheckedItems(const Tensor* value, const std::string& label);

Op PrepareSequenceEmpty(const Node& node, const OpContext& context);
Op PrepareSequenceConstruct(const Node& node, const OpContext& context);
Op PrepareSequenceAt(const Node& node, const OpContext& context);
Op PrepareSequenceInsert(const Node& node, const OpContext& context);
Op PrepareSequenceErase(const Node& node, const OpContext& context);
Op PrepareSequenceLength(const Node& node, const OpContext& context);
Op PrepareSplitToSequence(const Node& node, const OpContext& context);
Op PrepareConcatFromSequence(const Node& node, const OpContext& context);
Op PrepareOptional(const Node& node, const OpContext& context);
Op PrepareOptionalHasElement(const Node& node, const OpContext& context);
Op PrepareOptionalGetElement(const Node& node, const OpContext& context);

}  // namespace pared
