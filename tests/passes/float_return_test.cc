#include "passes/float_return.h"

#include <gtest/gtest.h>

namespace pared {
namespace {

TEST(RankEffort, OfModelsThatRunFastIsAllThereIs) {
  // ResNet-50 and yolov8n at 640 x 640.
  for (const auto& [nodes, macs] : {std::pair<size_t, double>{54, 4.1e9}, {64, 4.2e9}}) {
    const RankEffort effort = RankEffortOf(nodes, nodes / 5, macs);
    EXPECT_EQ(effort.samples, kRankSamples);
    EXPECT_EQ(effort.nodes, nodes);
  }
  EXPECT_EQ(RankEffortOf(10, 2, 0).nodes, 10U);
}

TEST(RankEffort, TakesFewerSamplesThenFewerNodes) {
  EXPECT_EQ(RankEffortOf(50, 10, 1e10).samples, 2);
  EXPECT_EQ(RankEffortOf(50, 10, 1e10).nodes, 50U);
  const RankEffort large = RankEffortOf(112, 22, 7e10);
  EXPECT_EQ(large.samples, 1);
  EXPECT_EQ(large.nodes, 44U);  // twice as many as may return
  EXPECT_EQ(RankEffortOf(112, 2, 7e10).nodes, 31U);
  EXPECT_EQ(RankEffortOf(112, 1000, 7e10).nodes, 112U);
}

}  // namespace
}  // namespace pared
