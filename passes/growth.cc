#include "passes/growth.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>

#include "model/rewrite.h"

namespace pared {

int64_t BytesOf(const Graph& graph) {
  constexpr int64_t kField = 2;  // bytes beside what a field holds
  int64_t bytes = 0;
  const auto add_name = [&](const std::string& name) { bytes += kField + std::ssize(name); };
  const auto add = [&](const Tensor& tensor) {
    bytes += PackedBytes(tensor.dtype(), tensor.shape()) + kField * (3 + tensor.rank());
  };
  for (const auto& [name, initializer] : graph.initializers) {
    add_name(name);
    add(initializer.tensor);
  }
  for (const Node& node : graph.nodes) {
    for (const auto* names : {&node.inputs, &node.outputs}) {
      for (const std::string& name : *names) add_name(name);
    }
    add_name(node.name);
    add_name(node.op_type);
    for (const auto& [name, attribute] : node.attributes) {
      add_name(name);
      bytes += 3 * kField;  // its type and value, and itself
    }
    bytes += kField;
    for (const GraphPtr& inner : SubgraphsOf(node)) bytes += BytesOf(*inner);
    const Tensor* value = node.op_type == "Constant" ? node.TensorOf("value") : nullptr;
    if (value != nullptr) add(*value);
  }
  return bytes;
}

StoredTwice FindStoredTwice(const Graph& before, const Graph& after, const std::string& suffix) {
  StoredTwice found;
  int64_t largest = -1;
  for (const auto& [name, initializer] : before.initializers) {
    if (!after.initializers.contains(name) || !after.initializers.contains(name + suffix)) continue;
    const int64_t bytes = std::ssize(after.initializers.at(name).tensor.bytes());
    ++found.count;
    found.bytes += bytes;
    if (bytes <= largest) continue;
    largest = bytes;
    found.example = name;
  }
  return found;
}

void MergeNewConstants(const Graph& before, Graph& graph) {
  using Key = std::tuple<DType, Shape, std::string_view>;
  std::map<Key, std::string> known;
  std::map<std::string, std::string> merged;  // name to the one that stays
  for (const auto& [name, initializer] : graph.initializers) {
    const std::span<const std::byte> bytes = initializer.tensor.bytes();
    // Scales and zero points stay apart: onnxruntime, told to compute exactly without VNNI, moves
    // the zero points of int8 weights, and does so for each reader of a shared one.
    if (before.initializers.contains(name) || initializer.tensor.rank() < 2) continue;
    const Key key{initializer.tensor.dtype(),
                  initializer.tensor.shape(),
                  {reinterpret_cast<const char*>(bytes.data()), bytes.size()}};
    const auto [first, is_new] = known.emplace(key, name);
    if (!is_new) merged.emplace(name, first->second);
  }
  for (const auto& [name, kept] : merged) {
    if (!IsAmong(graph.outputs, name)) ReplaceUses(graph, name, kept);
  }
  if (!merged.empty()) EraseDead(graph);
}

}  // namespace pared
