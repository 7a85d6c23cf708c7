#include "storage/maintenance.h"

#include <gmock/gmock.h>

#include <fstream>

#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

namespace fs = std::filesystem;

class MaintenanceTest : public ::testing::Test {
 protected:
  std::string PutOld(const std::string& bytes) {
    const fs::path file = folder_ / "in.onnx";
    std::ofstream(file, std::ios::binary) << bytes;
    const std::string sha256 = artifacts_.Put(file).sha256;
    fs::remove(file);
    const auto old = fs::file_time_type::clock::now() - std::chrono::hours(2);
    fs::last_write_time(artifacts_.Open(sha256).model.parent_path(), old);
    return sha256;
  }

  bool IsThere(const std::string& sha256) {
    return fs::exists(folder_ / "artifacts" / sha256.substr(0, 2) / sha256);
  }

  TempDir folder_;
  Store store_{folder_ / "pared.db", {}};
  Artifacts artifacts_{folder_ / "artifacts"};
};

TEST_F(MaintenanceTest, SweepsOnlyWhatNothingNames) {
  const std::string model = PutOld("model"), made = PutOld("made"), waiting = PutOld("waiting");
  const std::string loose = PutOld("loose1");
  store_.PutModel("m", model, 5);
  RunRecord run;
  run.artifact = made;
  const JobId id = store_.Submit(Json::object());
  store_.Claim({});
  store_.Finish(id, JobState::kSucceeded, nullptr, {run});
  store_.Submit({{"model_sha256", waiting}});

  const Garbage dry = CollectGarbage(store_, artifacts_, {.is_dry = true});
  EXPECT_EQ(dry.artifacts, 1);
  EXPECT_EQ(dry.bytes, 6);
  EXPECT_TRUE(IsThere(loose));
  EXPECT_EQ(CollectGarbage(store_, artifacts_, {}).artifacts, 1);
  EXPECT_FALSE(IsThere(loose));
  EXPECT_TRUE(IsThere(model));
  EXPECT_TRUE(IsThere(made));
  EXPECT_TRUE(IsThere(waiting));
  store_.DeleteRun(1);
  EXPECT_EQ(CollectGarbage(store_, artifacts_, {}).artifacts, 1);
  EXPECT_FALSE(IsThere(made));
}

TEST_F(MaintenanceTest, WhatIsPutAgainIsYoungAgain) {
  const std::string sha256 = PutOld("x");
  const fs::path file = folder_ / "again.onnx";
  std::ofstream(file, std::ios::binary) << "x";
  EXPECT_EQ(artifacts_.Put(file).sha256, sha256);
  EXPECT_EQ(CollectGarbage(store_, artifacts_, {}).artifacts, 0);
}

TEST_F(MaintenanceTest, DeletesRunsPastTheirDays) {
  const JobId id = store_.Submit(Json::object());
  store_.Claim({});
  store_.Finish(id, JobState::kSucceeded, nullptr, {RunRecord{}});
  EXPECT_EQ(CollectGarbage(store_, artifacts_, {.run_days = 1}).runs, 0);
  EXPECT_EQ(store_.DeleteRunsBefore(store_.GetRun(1)->created_ms), 0);
  EXPECT_EQ(store_.DeleteRunsBefore(store_.GetRun(1)->created_ms + 1), 1);
}

TEST_F(MaintenanceTest, AKeptRunOutlivesItsDaysWithItsBaseline) {
  for (int i = 0; i < 2; ++i) {  // runs 1 and 2, 3 and 4
    const JobId id = store_.Submit(Json::object());
    store_.Claim({});
    RunRecord baseline, chain;
    baseline.chain = "baseline";
    chain.chain = "int8";
    store_.Finish(id, JobState::kSucceeded, nullptr, {baseline, chain});
  }
  store_.ChangeRun(4, {.tags = {{"keep", "yes"}}, .note = {}});
  const int64_t later = store_.GetRun(4)->created_ms + 1;
  EXPECT_EQ(store_.CountRunsBefore(later), 2);
  EXPECT_EQ(store_.DeleteRunsBefore(later), 2);
  EXPECT_FALSE(store_.GetRun(1).has_value());
  EXPECT_TRUE(store_.GetRun(3).has_value());
  EXPECT_EQ(store_.GetRun(4)->tags.at("keep"), "yes");
  store_.ChangeRun(4, {.tags = {{"keep", std::nullopt}}, .note = {}});
  EXPECT_EQ(store_.DeleteRunsBefore(later), 2);
}

TEST_F(MaintenanceTest, BacksUpAStoreThatIsInUse) {
  store_.PutModel("m", std::string(64, 'a'), 1);
  const fs::path copy = folder_ / "copy.db";
  BackUpStore(folder_ / "pared.db", copy);
  store_.PutModel("later", std::string(64, 'b'), 1);
  const Store restored(copy, {});
  EXPECT_TRUE(restored.GetModel("m").has_value());
  EXPECT_FALSE(restored.GetModel("later").has_value());
  EXPECT_THAT([&] { BackUpStore(folder_ / "pared.db", copy); },
              ThrowsError(ErrorCode::kConflict, copy.string()));
  EXPECT_THAT([&] { BackUpStore(folder_ / "no.db", folder_ / "c"); },
              ThrowsError(ErrorCode::kNotFound, (folder_ / "no.db").string()));
}

TEST_F(MaintenanceTest, TheGreatestPriorityRunsFirst) {
  store_.Submit({{"priority", 0}});
  store_.Submit({{"priority", 5}});
  store_.Submit({{"priority", -5}});
  store_.Submit({{"priority", 5}});
  std::vector<JobId> order;
  for (int i = 0; i < 4; ++i) order.push_back(store_.Claim({})->id);
  EXPECT_THAT(order, ::testing::ElementsAre(2, 4, 1, 3));
}

}  // namespace
}  // namespace pared
