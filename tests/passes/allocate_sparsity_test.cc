#include "passes/allocate_sparsity.h"

#include <gmock/gmock.h>

namespace pared {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

TEST(AllocateSparsity, GivesFirstWhatCostsLeast) {
  const std::vector<SparsityPoint> layers[] = {{{0.5, 5, 10}, {0.9, 9, 90}},
                                               {{0.5, 5, 1}, {0.9, 9, 5}}};
  const Allocation allocation = AllocateSparsity(layers, 9);
  EXPECT_THAT(allocation.sparsities, ElementsAre(0, 0.9));
  EXPECT_EQ(allocation.saved, 9);
}

TEST(AllocateSparsity, GivesPartOfTheLastStep) {
  const std::vector<SparsityPoint> layers[] = {{{0.5, 5, 10}, {0.9, 9, 90}},
                                               {{0.5, 5, 1}, {0.9, 9, 5}}};
  const Allocation allocation = AllocateSparsity(layers, 11.5);
  EXPECT_THAT(allocation.sparsities, ElementsAre(DoubleEq(0.25), 0.9));
}

// A point above the line between its neighbours is never a good place to stop.
TEST(AllocateSparsity, PassesOverPointsAboveTheHull) {
  const std::vector<SparsityPoint> layers[] = {{{0.4, 4, 100}, {0.8, 8, 8}}, {{0.8, 8, 16}}};
  EXPECT_THAT(AllocateSparsity(layers, 8).sparsities, ElementsAre(0.8, 0));
}

TEST(AllocateSparsity, SaysWhereAllLayersCannotSaveAsMuch) {
  const std::vector<SparsityPoint> layers[] = {{{0.9, 9, 1}}, {}};
  const Allocation allocation = AllocateSparsity(layers, 20);
  EXPECT_EQ(allocation.saved, 9);
  EXPECT_THAT(allocation.sparsities, ElementsAre(0.9, 0));
}

TEST(AllocateSparsity, TakesTheFirstLayerAmongEquals) {
  const std::vector<SparsityPoint> layers[] = {{{0.5, 5, 1}}, {{0.5, 5, 1}}};
  EXPECT_THAT(AllocateSparsity(layers, 5).sparsities, ElementsAre(0.5, 0));
}

TEST(AllocateSparsity, IgnoresPointsThatSaveNothing) {
  const std::vector<SparsityPoint> layers[] = {{{0.3, 0, 1}, {0.5, 0, 2}, {0.9, 4, 3}}};
  EXPECT_THAT(AllocateSparsity(layers, 2).sparsities, ElementsAre(DoubleEq(0.45)));
}

}  // namespace
}  // namespace pared
