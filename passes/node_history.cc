#include "passes/node_history.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "passes/select_nodes.h"

namespace pared {
namespace {

using Places = std::vector<size_t>;
using PlacesByName = std::unordered_map<std::string, Places>;

const Places& At(const PlacesByName& places, const std::string& name) {
  static const Places kNone;
  const auto found = places.find(name);
  return found == places.end() ? kNone : found->second;
}

bool SameNode(const Node& a, const Node& b) {
  return a.name == b.name && a.op_type == b.op_type && a.outputs == b.outputs;
}

// Some of many labels, and how many more there are.
std::string Listed(const std::vector<std::string>& labels) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(kShown, labels.size()); ++i) {
    text += (i == 0 ? "" : ", ") + labels[i];
  }
  if (labels.size() > kShown) text += " and " + std::to_string(labels.size() - kShown) + " more";
  return text;
}

}  // namespace

// Graphs within each other are one list. Two beside each other may use one name for two values:
// what is said of the one is then said of the other too, which keeps rather more than was asked.
struct NodeHistory::Version {
  struct Place {
    Node node;                       // name, op_type and outputs only: the rest may be large
    std::vector<std::string> reads;  // inputs, and what its subgraphs capture
    Places inner;                    // the nodes of its subgraphs, at any depth
    bool is_in_function = false;
  };

  explicit Version(const Model& model) {
    Add(model.graph);
    const size_t first = places.size();
    for (const Function& function : model.functions) {
      for (const Node& node : function.nodes) Add(node);
    }
    for (size_t i = first; i < places.size(); ++i) places[i].is_in_function = true;
  }

  bool Makes(const std::string& value) const { return makers.contains(value); }
  bool Has(const std::string& value) const { return Makes(value) || given.contains(value); }

  std::vector<Place> places;
  PlacesByName by_name, makers, readers;
  std::unordered_set<std::string> given;  // inputs and initializers

 private:
  void Add(const Graph& graph) {
    for (const ValueInfo& input : graph.inputs) given.insert(input.name);
    for (const auto& [name, initializer] : graph.initializers) given.insert(name);
    for (const auto& [name, initializer] : graph.sparse_initializers) given.insert(name);
    for (const Node& node : graph.nodes) Add(node);
  }

  void Add(const Node& node) {
    const size_t at = places.size();
    Place& place = places.emplace_back();
    place.node.name = node.name;
    place.node.op_type = node.op_type;
    place.node.outputs = node.outputs;
    place.reads = node.inputs;
    const std::vector<std::string> captured = CapturedNamesOf(node);
    place.reads.insert(place.reads.end(), captured.begin(), captured.end());
    std::erase(place.reads, "");
    if (!node.name.empty()) by_name[node.name].push_back(at);
    for (const std::string& output : node.outputs) {
      if (!output.empty()) makers[output].push_back(at);
    }
    for (const std::string& value : place.reads) readers[value].push_back(at);
    for (const GraphPtr& subgraph : SubgraphsOf(node)) {
      const size_t first = places.size();
      Add(*subgraph);
      for (size_t i = first; i < places.size(); ++i) places[at].inner.push_back(i);
    }
  }
};

namespace {

// From one version of a model to the next.
template <class Version>
class Successors {
 public:
  Successors(const Version& from, const Version& to) : from_(from), to_(to) {}

  // What has become of a node.
  Places Of(size_t place) const {
    const Node& node = from_.places[place].node;
    const Places same = Same(node);
    if (!same.empty()) return same;
    if (from_.places[place].is_in_function) return WrittenOut(node);
    std::set<size_t> found;
    for (const std::string& value : StillMade(place)) Collect(value, found);
    if (found.empty()) return At(to_.by_name, NameOf(node));
    return {found.begin(), found.end()};
  }

 private:
  // The nodes that have the name; of an unnamed one, those that make its outputs in its way, or
  // have got the name it went by.
  Places Same(const Node& node) const {
    Places same;
    if (node.name.empty()) {
      for (const std::string& output : node.outputs) {
        for (const size_t other : At(to_.makers, output)) {
          const Node& maker = to_.places[other].node;
          if (maker.name.empty() && SameNode(maker, node)) same.push_back(other);
        }
      }
      if (!same.empty()) return same;
    }
    for (const size_t other : At(to_.by_name, NameOf(node))) {
      const Node& named = to_.places[other].node;
      if (named.op_type == node.op_type && (!node.name.empty() || IsNew(named))) {
        same.push_back(other);
      }
    }
    return same;
  }

  // Calls that are written out name nodes after themselves and the function's: CALL/NODE, and a
  // number behind where that is taken.
  Places WrittenOut(const Node& node) const {
    Places written;
    for (size_t i = 0; !node.name.empty() && i < to_.places.size(); ++i) {
      const Node& other = to_.places[i].node;
      if (other.op_type != node.op_type || !IsNew(other) || other.name.empty()) continue;
      std::string_view name = other.name;
      if (!name.ends_with(node.name)) {
        const size_t stem = name.find_last_not_of("0123456789");
        if (stem == std::string_view::npos || name[stem] != '_') continue;
        name = name.substr(0, stem);
      }
      if (name == node.name || name.ends_with("/" + node.name)) written.push_back(i);
    }
    return written;
  }

  // The outputs that are still made, or the first values computed from them that are, where
  // something else than before makes them.
  std::vector<std::string> StillMade(size_t place) const {
    std::vector<std::string> made, waiting = from_.places[place].node.outputs;
    std::unordered_set<std::string> seen;
    while (!waiting.empty()) {
      const std::string value = std::move(waiting.back());
      waiting.pop_back();
      if (value.empty() || !seen.insert(value).second) continue;
      if (to_.Has(value)) {
        if (to_.Makes(value) && !IsMadeAsBefore(value)) made.push_back(value);
        continue;
      }
      for (const size_t reader : At(from_.readers, value)) {
        const auto& outputs = from_.places[reader].node.outputs;
        waiting.insert(waiting.end(), outputs.begin(), outputs.end());
      }
    }
    return made;
  }

  bool IsMadeAsBefore(const std::string& value) const {
    return std::ranges::any_of(At(from_.makers, value), [&](size_t before) {
      const Node& node = from_.places[before].node;
      return std::ranges::any_of(At(to_.makers, value), [&](size_t after) {
        return to_.places[after].node.op_type == node.op_type &&
               to_.places[after].node.name == node.name;
      });
    });
  }

  // The makers of `value`, and of what they read, back to what was there before.
  void Collect(const std::string& value, std::set<size_t>& found) const {
    std::vector<std::string> waiting = {value};
    while (!waiting.empty()) {
      const std::string at = std::move(waiting.back());
      waiting.pop_back();
      for (const size_t maker : At(to_.makers, at)) {
        if (!found.insert(maker).second) continue;
        const auto& place = to_.places[maker];
        if (!IsNew(place.node)) continue;
        for (const size_t inner : place.inner) {
          const Node& node = to_.places[inner].node;
          const auto is_known = [&](const std::string& output) { return from_.Has(output); };
          if (IsNew(node) && std::ranges::none_of(node.outputs, is_known)) found.insert(inner);
        }
        for (const std::string& read : place.reads) {
          if (!from_.Has(read)) waiting.push_back(read);
        }
      }
    }
  }

  bool IsNew(const Node& node) const {
    return node.name.empty() || !from_.by_name.contains(node.name);
  }

  const Version& from_;
  const Version& to_;
};

}  // namespace

NodeHistory::NodeHistory(const Model& model) : present_(std::make_shared<const Version>(model)) {
  AddOrigins();
}

void NodeHistory::Advance(const Model& model, const std::string& by) {
  const auto next = std::make_shared<const Version>(model);
  const Successors<Version> successors(*present_, *next);
  std::vector<Places> became;
  for (size_t i = 0; i < present_->places.size(); ++i) became.push_back(successors.Of(i));
  for (Origin& origin : origins_) {
    if (origin.now.empty()) continue;
    std::set<size_t> now;
    for (const size_t place : origin.now) now.insert(became[place].begin(), became[place].end());
    origin.now.assign(now.begin(), now.end());
    if (now.empty()) origin.gone_by = by;
  }
  present_ = next;
  AddOrigins();
}

// Every node of the present version is one, unless it stands there as it always was.
void NodeHistory::AddOrigins() {
  std::unordered_set<size_t> known;
  for (const Origin& origin : origins_) {
    for (const size_t place : origin.now) {
      if (SameNode(origin.node, present_->places[place].node)) known.insert(place);
    }
  }
  for (size_t i = 0; i < present_->places.size(); ++i) {
    if (!known.contains(i)) origins_.push_back({present_->places[i].node, {i}, ""});
  }
}

namespace {

std::string WhyNothing(const std::vector<std::string>& gone, const std::set<std::string>& by) {
  return Listed(gone) + ": taken out by " + (by.size() == 1 ? *by.begin() : "passes before") +
         ", nothing of it is left";
}

}  // namespace

std::vector<std::string> NodeHistory::FollowOne(const std::string& reference, Json& notes) const {
  const auto selects = SelectorOf({reference});
  const auto& places = present_->places;
  std::vector<std::string> references;
  if (std::ranges::any_of(places, [&](const auto& place) { return selects(place.node); })) {
    references.push_back(reference);
  }
  std::set<size_t> others;
  std::vector<std::string> gone;
  std::set<std::string> gone_by;
  bool is_known = false;
  for (const Origin& origin : origins_) {
    if (!selects(origin.node)) continue;
    is_known = true;
    if (origin.now.empty() && std::ranges::count(gone, NodeLabel(origin.node)) == 0) {
      gone.push_back(NodeLabel(origin.node));
      gone_by.insert(origin.gone_by);
    }
    for (const size_t place : origin.now) {
      if (!selects(places[place].node)) others.insert(place);
    }
  }
  if (!is_known) return {reference};
  std::vector<std::string> labels;
  for (const size_t place : others) {
    references.push_back(NameOf(places[place].node));
    labels.push_back(NodeLabel(places[place].node));
  }
  if (!labels.empty()) notes.push_back({{"reference", reference}, {"nodes", labels}});
  if (references.empty()) {
    notes.push_back({{"reference", reference}, {"reason", WhyNothing(gone, gone_by)}});
  }
  return references;
}

Json NodeHistory::Follow(Json options, Json& notes) const {
  if (const auto exclude = options.find("exclude"); exclude != options.end()) {
    Json followed = Json::array();
    for (const Json& reference : *exclude) {
      for (std::string& each : FollowOne(reference.get<std::string>(), notes)) {
        if (std::ranges::find(followed, Json(each)) == followed.end()) {
          followed.push_back(std::move(each));
        }
      }
    }
    *exclude = std::move(followed);
  }
  if (const auto overrides = options.find("overrides"); overrides != options.end()) {
    Json followed = Json::array();
    for (const Json& entry : *overrides) {
      for (const std::string& each : FollowOne(entry.at("match").get<std::string>(), notes)) {
        followed.push_back(entry);
        followed.back()["match"] = each;
      }
    }
    *overrides = std::move(followed);
  }
  return options;
}

}  // namespace pared
