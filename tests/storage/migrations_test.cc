// A store written by each older schema opens with the newest and keeps its data.

#include <gmock/gmock.h>

#include <string>

#include "storage/schema.h"
#include "storage/store.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using testing::SizeIs;

// What the first schema could already hold, by its own columns.
constexpr const char* kRows = R"sql(
INSERT INTO models VALUES ('yolo', 'aa', 12, 1000);
INSERT INTO jobs (id, state, tries, spec, idempotency_key, created_ms) VALUES
  (3, 'queued', 0, '{"model":"yolo"}', 'k', 1001);
INSERT INTO jobs (id, state, tries, spec, error, created_ms, started_ms, finished_ms) VALUES
  (4, 'failed', 2, '{"model":"yolo"}', '{"code":"internal"}', 1002, 1003, 1004);
INSERT INTO runs (id, job, experiment, model, chain, steps, reports, machine, artifact, created_ms)
  VALUES (9, 4, 'nightly', 'yolo', 'int8', '[{"pass":"quantize_int8"}]', '[]', '{"isa":"avx2"}', 'bb', 1004);
INSERT INTO metrics VALUES (9, 'top1', 0.75), (9, 'broken', NULL);
)sql";

class MigrationsTest : public testing::TestWithParam<int64_t> {};

TEST_P(MigrationsTest, AStoreOfThisSchemaKeepsItsData) {
  const TempDir dir;
  {
    Database old(dir / "pared.db", DatabaseAccess::kWrite);
    Migrate(old, GetParam());
    old.Execute(kRows);
  }
  Store store(dir / "pared.db", {});
  EXPECT_EQ(store.GetModel("yolo")->sha256, "aa");
  ASSERT_THAT(store.Jobs({}), SizeIs(2));
  EXPECT_EQ(store.GetJob(4)->error["code"], "internal");
  EXPECT_EQ(store.GetJob(4)->tries, 2);
  EXPECT_EQ(store.GetJob(4)->requeues, 0);
  const std::optional<pared::Run> run = store.GetRun(9);
  ASSERT_TRUE(run);
  EXPECT_EQ(run->record.chain, "int8");
  EXPECT_EQ(run->record.artifact, "bb");
  EXPECT_EQ(run->record.machine["isa"], "avx2");
  EXPECT_EQ(run->record.steps[0]["pass"], "quantize_int8");
  EXPECT_EQ(run->record.metrics.at("top1"), 0.75);
  EXPECT_EQ(run->note, "");
  // It works on as the queue that it was.
  EXPECT_EQ(store.SubmitOnce({{"model", "yolo"}}, "k"), 3);
  EXPECT_EQ(store.Claim({})->id, 3);
  store.Retry(3, {{"code", "internal"}});
  EXPECT_EQ(store.GetJob(3)->requeues, 1);
}

INSTANTIATE_TEST_SUITE_P(EverySchema, MigrationsTest,
                         testing::Range<int64_t>(1, SchemaVersion() + 1));

TEST(Migrations, AStoreOfANewerParedIsLeftAlone) {
  const TempDir dir;
  {
    Database newer(dir / "pared.db", DatabaseAccess::kWrite);
    Migrate(newer);
    newer.Execute("PRAGMA user_version = " + std::to_string(SchemaVersion() + 1));
  }
  EXPECT_THAT([&] { Store(dir / "pared.db", {}); },
              ThrowsError(ErrorCode::kInvalidArgument, testing::_));
}

}  // namespace
}  // namespace pared
