#include "evaluator/sequence.h"

#include <algorithm>
#include <memory>

#include "evaluator/op_checks.h"

namespace pared {

Tensor MakeSequence(std::vector<Tensor> items) {
  auto owner = std::make_shared<const std::vector<Tensor>>(std::move(items));
  const std::span<const std::byte> bytes = std::as_bytes(std::span<const Tensor>(*owner));
  const auto count = static_cast<int64_t>(owner->size());
  return Tensor::View(kSequence, {count}, bytes, std::move(owner));
}

std::span<const Tensor> ItemsOf(const Tensor& sequence) {
  PARED_CHECK(sequence.dtype() == kSequence);
  return {reinterpret_cast<const Tensor*>(sequence.bytes().data()), Sz(sequence.count())};
}

std::span<const Tensor> CheckedItems(const Tensor* value, const std::string& label) {
  if (value == nullptr || value->dtype() != kSequence) RefuseNode("needs a sequence", label);
  return ItemsOf(*value);
}

namespace {

using Inputs = std::span<const Tensor* const>;
using Outputs = std::span<Tensor>;

// A position from the front, in [0, limit); negative ones count from `count`.
size_t PlaceIn(const Tensor& position, int64_t count, int64_t limit, const std::string& label) {
  const std::vector<int64_t> given = IntegersOf(position, label);
  const int64_t place = given.size() != 1 ? -1 : given[0] < 0 ? given[0] + count : given[0];
  if (place < 0 || place >= limit) {
    RefuseNode("its position is not within the " + std::to_string(count) + " items", label);
  }
  return Sz(place);
}

// Items of one element type, as ONNX's sequences are.
void CheckItem(std::span<const Tensor> items, const Tensor& item, const std::string& label) {
  if (!items.empty() && items.front().dtype() != item.dtype()) {
    RefuseNode(std::string("an item of type ") + DTypeName(item.dtype()) + " in a sequence of " +
                   DTypeName(items.front().dtype()),
               label);
  }
}

// The lengths of the pieces along an axis of `length`.
std::vector<int64_t> PieceLengths(const Tensor* split, int64_t length, const std::string& label) {
  if (split == nullptr) return std::vector<int64_t>(Sz(length), 1);
  const std::vector<int64_t> given = IntegersOf(*split, label);
  if (std::ranges::any_of(given, [](int64_t piece) { return piece < 0; })) {
    RefuseNode("a piece of negative length", label);
  }
  if (split->rank() == 0) {
    if (given[0] == 0) RefuseNode("pieces of length 0", label);
    std::vector<int64_t> pieces(Sz(length / given[0]), given[0]);
    if (length % given[0] != 0) pieces.push_back(length % given[0]);
    return pieces;
  }
  int64_t sum = 0;
  for (const int64_t piece : given) {
    if (__builtin_add_overflow(sum, piece, &sum)) sum = INT64_MIN;
  }
  if (sum != length) RefuseNode("its pieces do not add up to the axis", label);
  return given;
}

// [outer][length][inner] to and from its parts along the middle axis.
struct Axis {
  Axis(const Shape& shape, int64_t axis)
      : outer(Extent(shape, 0, axis)),
        length(shape[Sz(axis)]),
        inner(Extent(shape, axis + 1, static_cast<int64_t>(shape.size()))) {}
  int64_t outer, length, inner;
};

Tensor Piece(const Tensor& tensor, int64_t axis, std::pair<int64_t, int64_t> range,
             Scratch& scratch, const std::string& label) {
  const Axis whole(tensor.shape(), axis);
  Shape shape = tensor.shape();
  shape[Sz(axis)] = range.second - range.first;
  Tensor piece;
  DispatchWidth(tensor.dtype(), label, [&]<class T>() {
    T* y = AllocateLike<T>(piece, tensor.dtype(), shape, scratch);
    const T* x = Elements<T>(tensor) + range.first * whole.inner;
    const int64_t count = shape[Sz(axis)] * whole.inner;
    for (int64_t o = 0; o < whole.outer; ++o) {
      std::copy_n(x + o * whole.length * whole.inner, count, y + o * count);
    }
  });
  return piece;
}

}  // namespace

Op PrepareSequenceEmpty(const Node&, const OpContext&) {
  return [](Inputs, Outputs outputs, Scratch&) { outputs[0] = MakeSequence({}); };
}

Op PrepareSequenceConstruct(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, SIZE_MAX);
  return [label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch&) {
    std::vector<Tensor> items;
    for (const Tensor* input : inputs) {
      if (input == nullptr) RefuseNode("an item is left out", label);
      CheckItem(items, *input, label);
      items.push_back(*input);
    }
    outputs[0] = MakeSequence(std::move(items));
  };
}

Op PrepareSequenceAt(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 2);
  return [label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch&) {
    const std::span<const Tensor> items = CheckedItems(inputs[0], label);
    const int64_t count = inputs[0]->count();
    outputs[0] = items[PlaceIn(*inputs[1], count, count, label)];
  };
}

Op PrepareSequenceInsert(const Node& node, const OpContext&) {
  CheckInputCount(node, 2, 3);
  return [label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch&) {
    const std::span<const Tensor> items = CheckedItems(inputs[0], label);
    CheckItem(items, *inputs[1], label);
    const int64_t count = inputs[0]->count();
    const bool has_place = inputs.size() > 2 && inputs[2] != nullptr;
    const size_t place = has_place ? PlaceIn(*inputs[2], count, count + 1, label) : Sz(count);
    std::vector<Tensor> longer(items.begin(), items.end());
    longer.insert(longer.begin() + static_cast<int64_t>(place), *inputs[1]);
    outputs[0] = MakeSequence(std::move(longer));
  };
}

Op PrepareSequenceErase(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  return [label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch&) {
    const std::span<const Tensor> items = CheckedItems(inputs[0], label);
    if (items.empty()) RefuseNode("cannot erase from an empty sequence", label);
    const int64_t count = inputs[0]->count();
    const bool has_place = inputs.size() > 1 && inputs[1] != nullptr;
    const size_t place = has_place ? PlaceIn(*inputs[1], count, count, label) : Sz(count - 1);
    std::vector<Tensor> shorter(items.begin(), items.end());
    shorter.erase(shorter.begin() + static_cast<int64_t>(place));
    outputs[0] = MakeSequence(std::move(shorter));
  };
}

Op PrepareSequenceLength(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch&) {
    outputs[0] = Tensor::Scalar(static_cast<int64_t>(CheckedItems(inputs[0], label).size()));
  };
}

Op PrepareSplitToSequence(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 2);
  return [axis_given = node.Int("axis", 0), keeps = node.Int("keepdims", 1) != 0,
          label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch& scratch) {
    const Tensor& x = *inputs[0];
    const int64_t axis = NormalizeAxis(axis_given, x.rank(), label);
    const Tensor* split = inputs.size() > 1 ? inputs[1] : nullptr;
    std::vector<Tensor> items;
    int64_t begin = 0;
    for (const int64_t length : PieceLengths(split, x.shape()[Sz(axis)], label)) {
      Tensor piece = Piece(x, axis, {begin, begin + length}, scratch, label);
      if (split == nullptr && !keeps) {
        Shape shape = piece.shape();
        shape.erase(shape.begin() + axis);
        piece = piece.Reshaped(std::move(shape));
      }
      items.push_back(std::move(piece));
      begin += length;
    }
    outputs[0] = MakeSequence(std::move(items));
  };
}

Op PrepareConcatFromSequence(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  if (!node.attributes.contains("axis")) RefuseNode("lacks its axis", NodeLabel(node));
  return [axis_given = node.Int("axis", 0), stacks = node.Int("new_axis", 0) != 0,
          label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch& scratch) {
    const std::span<const Tensor> given = CheckedItems(inputs[0], label);
    if (given.empty()) RefuseNode("cannot join an empty sequence", label);
    const int64_t axis = NormalizeAxis(axis_given, given.front().rank() + (stacks ? 1 : 0), label);
    std::vector<Tensor> items(given.begin(), given.end());
    Shape shape;
    int64_t length = 0;
    for (Tensor& item : items) {
      Shape own = item.shape();
      if (stacks) own.insert(own.begin() + std::min(axis, item.rank()), 1);
      item = item.Reshaped(own);
      if (item.rank() <= axis) RefuseNode("its items differ in rank", label);
      length += std::exchange(own[Sz(axis)], 0);
      if (&item == items.data()) shape = own;
      if (own != shape || item.dtype() != items[0].dtype()) {
        RefuseNode("its items differ beside the axis", label);
      }
    }
    shape[Sz(axis)] = length;
    const Axis whole(shape, axis);
    DispatchWidth(items[0].dtype(), label, [&]<class T>() {
      T* y = AllocateLike<T>(outputs[0], items[0].dtype(), shape, scratch);
      for (const Tensor& item : items) {
        const int64_t count = item.shape()[Sz(axis)] * whole.inner;
        for (int64_t o = 0; o < whole.outer; ++o) {
          std::copy_n(Elements<T>(item) + o * count, count, y + o * length * whole.inner);
        }
        y += count;
      }
    });
  };
}

Op PrepareOptional(const Node& node, const OpContext&) {
  CheckInputCount(node, 0, 1);
  return [](Inputs inputs, Outputs outputs, Scratch&) {
    if (!inputs.empty() && inputs[0] != nullptr) outputs[0] = *inputs[0];
  };
}

Op PrepareOptionalHasElement(const Node& node, const OpContext&) {
  CheckInputCount(node, 0, 1);
  return [](Inputs inputs, Outputs outputs, Scratch&) {
    outputs[0] = Tensor::Scalar<bool>(!inputs.empty() && inputs[0] != nullptr);
  };
}

Op PrepareOptionalGetElement(const Node& node, const OpContext&) {
  CheckInputCount(node, 1, 1);
  return [label = NodeLabel(node)](Inputs inputs, Outputs outputs, Scratch&) {
    if (inputs[0] == nullptr) RefuseNode("its optional is empty", label);
    outputs[0] = *inputs[0];
  };
}

}  // namespace pared
