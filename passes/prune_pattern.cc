#include "passes/prune_pattern.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "passes/select_smallest.h"

namespace pared {
namespace {

struct NamedPattern {
  const char* text;
  Pattern pattern;
};

constexpr NamedPattern kPatterns[] = {
    {"unstructured", {1, 1, 0, 0}}, {"2x1", {2, 1, 0, 0}}, {"4x1", {4, 1, 0, 0}},
    {"8x1", {8, 1, 0, 0}},          {"1x4", {1, 4, 0, 0}}, {"4x4", {4, 4, 0, 0}},
    {"16x4", {16, 4, 0, 0}},        {"1:2", {1, 1, 1, 2}}, {"2:4", {1, 1, 2, 4}},
    {"1:4", {1, 1, 1, 4}},          {"4:8", {1, 1, 4, 8}}, {"2:8", {1, 1, 2, 8}},
    {"8:16", {1, 1, 8, 16}},
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The rows and columns of one block, cut at the edges.
struct Block {
  int64_t group, row_begin, row_end, k_begin, k_end;
};

template <class Visit>
void ForEachBlock(const MatrixLayout& layout, const Pattern& pattern, Visit visit) {
  for (int64_t group = 0; group < layout.groups; ++group) {
    for (int64_t row = 0; row < layout.rows; row += pattern.rows) {
      for (int64_t k = 0; k < layout.k; k += pattern.columns) {
        visit(Block{group, row, std::min(row + pattern.rows, layout.rows), k,
                    std::min(k + pattern.columns, layout.k)});
      }
    }
  }
}

template <class Visit>
void ForEachElement(const MatrixLayout& layout, const Block& block, Visit visit) {
  for (int64_t row = block.row_begin; row < block.row_end; ++row) {
    for (int64_t k = block.k_begin; k < block.k_end; ++k) visit(layout.Index(block.group, row, k));
  }
}

bool IsSingle(const Pattern& pattern) { return pattern.rows == 1 && pattern.columns == 1; }

// What to rank by, in the order of the node's view.
std::vector<float> ViewedImportance(const WeightSite& site, const std::vector<float>& importance) {
  if (!importance.empty()) return importance;
  std::vector<float> stored = ToFloat(site.stored);
  if (site.order.empty()) return stored;
  std::vector<float> viewed;
  viewed.reserve(site.order.size());
  for (int64_t at : site.order) viewed.push_back(stored[static_cast<size_t>(at)]);
  return viewed;
}

// Without a branch, which random zeros would mispredict.
template <class Word>
void ZeroMarked(std::span<std::byte> elements, const std::vector<bool>& zero) {
  for (size_t i = 0; i < zero.size(); ++i) {
    std::byte* element = elements.data() + i * sizeof(Word);
    Word word = 0;
    std::memcpy(&word, element, sizeof(Word));
    word = zero[i] ? Word{0} : word;
    std::memcpy(element, &word, sizeof(Word));
  }
}

}  // namespace

Pattern PatternOf(PatternName name) { return kPatterns[static_cast<size_t>(name)].pattern; }

const char* PatternText(PatternName name) { return kPatterns[static_cast<size_t>(name)].text; }

void PatternField(FieldVisitor& visitor, const char* name, PatternName& value, const char* help) {
  visitor.Choice(name, value,
                 {"unstructured", "2x1", "4x1", "8x1", "1x4", "4x4", "16x4", "1:2", "2:4", "1:4",
                  "4:8", "2:8", "8:16"},
                 help);
}

PruneUnits::PruneUnits(const WeightSite& site, Pattern pattern,
                       const std::vector<float>& importance)
    : site_(site), pattern_(pattern) {
  if (!IsSingle(pattern)) {
    ScoreBlocks(importance);
  } else if (importance.empty() && site.order.empty()) {
    elements_.emplace(site.stored);  // the common case: no copy of a large weight
    scores_ = elements_->get();
  } else {
    owned_ = ViewedImportance(site, importance);
    scores_ = owned_;
  }
}

void PruneUnits::ScoreBlocks(const std::vector<float>& importance) {
  const std::vector<float> values = ViewedImportance(site_, importance);
  ForEachBlock(site_.layout, pattern_, [&](const Block& block) {
    double squares = 0;
    int64_t count = 0;
    ForEachElement(site_.layout, block, [&](int64_t at) {
      const double value = values[static_cast<size_t>(at)];
      squares += value * value;
      ++count;
    });
    owned_.push_back(static_cast<float>(std::sqrt(squares / static_cast<double>(count))));
  });
  scores_ = owned_;
}

std::vector<bool> PruneUnits::Below(float magnitude, int64_t& ties) const {
  std::vector<bool> zero(static_cast<size_t>(site_.stored.count()), false);
  const auto chosen = [&](float score) {
    const float size = std::fabs(score);
    if (size == magnitude) [[unlikely]]
      return ties > 0 && ties-- > 0;
    return size < magnitude;
  };
  if (IsSingle(pattern_)) {
    // Of random weights every second branch would be mispredicted: assigned, not asked.
    for (size_t i = 0; i < scores_.size(); ++i) {
      zero[static_cast<size_t>(site_.StoredIndex(static_cast<int64_t>(i)))] = chosen(scores_[i]);
    }
    return zero;
  }
  size_t unit = 0;
  ForEachBlock(site_.layout, pattern_, [&](const Block& block) {
    if (!chosen(scores_[unit++])) return;
    ForEachElement(site_.layout, block,
                   [&](int64_t at) { zero[static_cast<size_t>(site_.StoredIndex(at))] = true; });
  });
  return zero;
}

std::vector<bool> ZeroesOfGroups(const WeightSite& site, Pattern pattern,
                                 const std::vector<float>& importance) {
  const std::vector<float> values = ViewedImportance(site, importance);
  std::vector<bool> zero(static_cast<size_t>(site.stored.count()), false);
  ForEachBlock(site.layout, {1, pattern.of, 0, 0}, [&](const Block& block) {
    std::vector<int64_t> elements;
    ForEachElement(site.layout, block, [&](int64_t at) { elements.push_back(at); });
    // Stable: among equals the first are zeroed.
    std::ranges::stable_sort(
        elements, {}, [&](int64_t at) { return std::fabs(values[static_cast<size_t>(at)]); });
    const int64_t kept = CeilDiv(std::ssize(elements) * pattern.keep, pattern.of);
    for (int64_t i = 0; i < std::ssize(elements) - kept; ++i) {
      zero[static_cast<size_t>(site.StoredIndex(elements[static_cast<size_t>(i)]))] = true;
    }
  });
  return zero;
}

Tensor Zeroed(const Tensor& stored, const std::vector<bool>& zero) {
  const std::span<const std::byte> bytes = stored.bytes();
  const auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
  switch (ElementBits(stored.dtype())) {
    case 8:
      ZeroMarked<uint8_t>(*copy, zero);
      break;
    case 16:
      ZeroMarked<uint16_t>(*copy, zero);
      break;
    case 32:
      ZeroMarked<uint32_t>(*copy, zero);
      break;
    default:
      ZeroMarked<uint64_t>(*copy, zero);
  }
  return Tensor::View(stored.dtype(), stored.shape(), *copy, copy);
}

double DensityOf(const Tensor& stored, const std::vector<bool>& zero) {
  const FloatElements elements(stored);
  const std::span<const float> values = elements.get();
  int64_t kept = 0;
  for (size_t i = 0; i < values.size(); ++i) kept += values[i] != 0 && !zero[i];
  return values.empty() ? 1.0 : static_cast<double>(kept) / static_cast<double>(values.size());
}

}  // namespace pared
