#include "passes/channel_shrink.h"

#include <algorithm>
#include <map>
#include <utility>

#include "model/rewrite.h"
#include "model/spill.h"
#include "passes/float_elements.h"

namespace pared {
namespace {

int64_t CountKept(const std::vector<int64_t>& channels, const std::set<int64_t>& removed) {
  return std::ranges::count_if(channels, [&](int64_t id) { return !removed.contains(id); });
}

using Place = std::pair<size_t, size_t>;  // node, input

class Shrinker {
 public:
  Shrinker(Model& model, const std::set<int64_t>& removed, const std::filesystem::path& spill)
      : model_(model),
        removed_(removed),
        spill_(spill),
        names_(model),
        groups_(FindChannelGroups(model)) {}

  void Run() {
    std::map<Place, Tensor> operands;
    {
      const GraphIndex index(model_.graph);
      for (const ChannelCut& cut : groups_.cuts) CutOne(index, cut, operands);
      for (const SizeCut& size : groups_.sizes) ResizeOne(index, size, operands);
    }
    for (auto& [place, tensor] : operands) Put(place, std::move(tensor));
    for (const auto& [node, channels] : groups_.group_attributes) {
      const int64_t kept = CountKept(channels, removed_);
      Attribute* group = model_.graph.nodes[node].attributes.find("group");
      if (group != nullptr && kept != std::ssize(channels)) group->value = kept;
    }
    for (const auto& [name, channels] : groups_.values) {
      ValueInfo* info = model_.graph.values.find(name);
      if (info == nullptr || !info->shape || channels.axis >= info->shape->size()) continue;
      const int64_t kept = CountKept(channels.ids, removed_);
      if (kept != std::ssize(channels.ids)) (*info->shape)[channels.axis] = {kept, "", {}};
    }
    EraseDead(model_.graph);
  }

 private:
  Tensor& OperandAt(const GraphIndex& index, Place place, std::map<Place, Tensor>& operands) const {
    const auto [at, is_new] = operands.try_emplace(place);
    const std::string& name = model_.graph.nodes[place.first].inputs[place.second];
    if (is_new) at->second = *ConstantOf(model_.graph, index, name, model_.ir_version);
    return at->second;
  }

  void CutOne(const GraphIndex& index, const ChannelCut& cut, std::map<Place, Tensor>& operands) {
    if (CountKept(cut.channels, removed_) == std::ssize(cut.channels)) return;
    Tensor& tensor = OperandAt(index, {cut.node, cut.input}, operands);
    const Tensor whole = tensor;
    tensor = Spilled(WithoutSlices(whole, cut, removed_), spill_);
    whole.DropPages();
  }

  void ResizeOne(const GraphIndex& index, const SizeCut& size, std::map<Place, Tensor>& operands) {
    const int64_t kept = CountKept(size.channels, removed_);
    if (kept == std::ssize(size.channels)) return;
    Tensor& tensor = OperandAt(index, {size.node, size.input}, operands);
    std::vector<int64_t> values(tensor.data<int64_t>().begin(), tensor.data<int64_t>().end());
    values[size.element] = kept;
    tensor = Tensor::Make(tensor.shape(), std::move(values));
  }

  // Readers of one constant that lose the same slices go on sharing it.
  void Put(Place place, Tensor tensor) {
    std::string& input = model_.graph.nodes[place.first].inputs[place.second];
    std::vector<std::pair<std::string, Tensor>>& cut = made_[input];
    for (const auto& [name, same] : cut) {
      if (same.shape() == tensor.shape() && std::ranges::equal(same.bytes(), tensor.bytes())) {
        input = name;
        return;
      }
    }
    const std::string name = names_.Make(input + "_cut");
    cut.emplace_back(name, tensor);
    model_.graph.initializers.set(name, {std::move(tensor), {}});
    input = name;
  }

  Model& model_;
  const std::set<int64_t>& removed_;
  const std::filesystem::path& spill_;
  FreshNames names_;
  ChannelGroups groups_;
  std::map<std::string, std::vector<std::pair<std::string, Tensor>>> made_;
};

}  // namespace

Tensor WithoutSlices(const Tensor& tensor, const ChannelCut& cut,
                     const std::set<int64_t>& removed) {
  Shape shape = tensor.shape();
  const int64_t size = shape[cut.axis];
  const auto after = shape.begin() + static_cast<std::ptrdiff_t>(cut.axis) + 1;
  const int64_t inner = ElementCount({after, shape.end()});
  const FloatElements elements(tensor);
  const std::span<const float> values = elements.get();
  std::vector<float> kept;
  kept.reserve(values.size() / static_cast<size_t>(size) *
               static_cast<size_t>(CountKept(cut.channels, removed)));
  for (int64_t at = 0; at < tensor.count(); at += inner) {
    const size_t slice = static_cast<size_t>(at / inner % size);
    if (removed.contains(cut.channels[slice])) continue;
    kept.insert(kept.end(), values.begin() + at, values.begin() + at + inner);
  }
  shape[cut.axis] = CountKept(cut.channels, removed);
  return Tensor::Make(std::move(shape), std::move(kept));
}

void ShrinkChannels(Model& model, const std::set<int64_t>& removed,
                    const std::filesystem::path& spill) {
  Shrinker(model, removed, spill).Run();
}

}  // namespace pared
