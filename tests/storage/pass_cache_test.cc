#include "storage/pass_cache.h"

#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

using namespace std::chrono_literals;
using testing::IsEmpty;
namespace fs = std::filesystem;

class PassCacheTest : public testing::Test {
 protected:
  PassCacheTest() { fs::create_directories(model_); }

  bool Put(const std::string& key, const std::string& bytes) const {
    return cache_.Put(key, {{"of", key}},
                      [&](const fs::path& folder) { WriteFile(folder / "model.onnx", bytes); });
  }

  // As if it had been used so long ago.
  void Age(const std::string& key, std::chrono::hours age) const {
    fs::last_write_time(model_ / key, fs::file_time_type::clock::now() - age);
  }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(model_))
      names.push_back(entry.path().filename());
    return names;
  }

  TempDir dir_;
  const fs::path model_ = dir_ / "m1";
  const PassCache cache_{model_, "7", 1'000};
};

TEST_F(PassCacheTest, GivesBackWhatWasPut) {
  EXPECT_FALSE(cache_.Find("k"));
  EXPECT_TRUE(Put("k", "bytes"));
  const auto entry = cache_.Find("k");
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->report, Json({{"of", "k"}}));
  EXPECT_EQ(ReadFile(entry->folder / "model.onnx"), "bytes");
}

TEST_F(PassCacheTest, DropsAnEntryWithOneOtherBit) {
  Put("k", "bytes");
  WriteFile(model_ / "k" / "model.onnx", "cytes");
  EXPECT_FALSE(cache_.Find("k"));
  EXPECT_THAT(Names(), IsEmpty());
  EXPECT_TRUE(Put("k", "bytes"));
  EXPECT_TRUE(cache_.Find("k"));
}

TEST_F(PassCacheTest, DropsAnEntryThatLacksAFile) {
  Put("k", "bytes");
  fs::remove(model_ / "k" / "model.onnx");
  EXPECT_FALSE(cache_.Find("k"));
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(PassCacheTest, DropsAnEntryWhoseReportWasChanged) {
  Put("k", "bytes");
  std::string text = ReadFile(model_ / "k" / "entry.json");
  text.replace(text.find("\"of\":\"k\""), 8, "\"of\":\"j\"");
  WriteFile(model_ / "k" / "entry.json", text);
  EXPECT_FALSE(cache_.Find("k"));
}

TEST_F(PassCacheTest, DropsAnEntryCutShort) {
  Put("k", "bytes");
  const std::string text = ReadFile(model_ / "k" / "entry.json");
  for (size_t length = 0; length < text.size(); length += 7) {
    Put("k", "bytes");
    WriteFile(model_ / "k" / "entry.json", text.substr(0, length));
    EXPECT_FALSE(cache_.Find("k")) << length;
  }
}

TEST_F(PassCacheTest, KeepsNothingThatIsLargerThanTheBound) {
  EXPECT_FALSE(Put("k", std::string(1'001, 'x')));
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(PassCacheTest, AWriterThatFailsLeavesNothingBehind) {
  const auto fail = [&] {
    cache_.Put("k", {}, [](const fs::path& folder) {
      WriteFile(folder / "model.onnx", "half");
      throw Error(ErrorCode::kUnavailable, "full", "disk");
    });
  };
  EXPECT_THAT(fail, ThrowsError(ErrorCode::kUnavailable, "disk"));
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(PassCacheTest, TheLeastRecentlyUsedGoFirst) {
  for (const char* key : {"a", "b", "c"}) Put(key, std::string(100, 'x'));
  Age("a", 3h);
  Age("b", 2h);
  Age("c", 1h);
  ASSERT_TRUE(cache_.Find("a"));  // used: now the youngest
  const int64_t all = TrimPassCache(dir_.path(), {.bytes_max = 1'000'000}, false).kept_bytes;
  const TrimmedCache dry = TrimPassCache(dir_.path(), {.bytes_max = all - 1}, true);
  EXPECT_EQ(dry.count, 1);
  EXPECT_EQ(TrimPassCache(dir_.path(), {.bytes_max = all}, false).count, 0);  // at the bound
  const TrimmedCache trimmed = TrimPassCache(dir_.path(), {.bytes_max = all - 1}, false);
  EXPECT_EQ(trimmed.count, 1);
  EXPECT_EQ(trimmed.kept_count, 2);
  EXPECT_EQ(trimmed.bytes + trimmed.kept_bytes, all);
  EXPECT_TRUE(cache_.Find("a"));
  EXPECT_FALSE(cache_.Find("b"));
  EXPECT_TRUE(cache_.Find("c"));
}

TEST_F(PassCacheTest, EntriesOfModelsThatAreGoneAreSwept) {
  fs::create_directories(dir_ / "m2");
  Put("k", "bytes");
  PassCache(dir_ / "m2", "8", 1'000).Put("k", {}, [](const fs::path&) {});
  const std::set<std::string> models = {"m2"};
  EXPECT_EQ(TrimPassCache(dir_.path(), {.bytes_max = 1'000'000, .models = &models}, false).count,
            1);
  EXPECT_FALSE(fs::exists(model_));
  EXPECT_TRUE(fs::exists(dir_ / "m2" / "k"));
}

TEST_F(PassCacheTest, PartsOfAWorkerThatDiedAreClearedAndNoOthers) {
  fs::create_directories(model_ / ".7-0");
  fs::create_directories(model_ / ".71-0");
  Put("k", "bytes");
  ClearPassCacheParts(dir_.path(), "7");
  EXPECT_FALSE(fs::exists(model_ / ".7-0"));
  EXPECT_TRUE(fs::exists(model_ / ".71-0"));
  ClearPassCacheParts(dir_.path(), "");
  EXPECT_FALSE(fs::exists(model_ / ".71-0"));
  EXPECT_TRUE(cache_.Find("k"));
}

// Workers that put, find and drop the same few keys while the daemon trims: whatever is found is
// whole.
TEST_F(PassCacheTest, SeveralWorkersAndATrimmerFindWholeEntriesOnly) {
  std::atomic<int> found = 0;
  std::vector<std::jthread> workers;
  for (int w = 0; w < 4; ++w) {
    workers.emplace_back([&, w] {
      const PassCache cache(model_, "w" + std::to_string(w), 1'000'000);
      for (int i = 0; i < 200; ++i) {
        const std::string key = "k" + std::to_string(i % 5);
        const auto entry = cache.Find(key);
        if (entry) {
          ++found;
          EXPECT_EQ(entry->report, Json({{"of", key}}));
        }
        cache.Put(key, {{"of", key}}, [&](const fs::path& folder) {
          WriteFile(folder / "model.onnx", std::string(1'000, key[1]));
        });
        if (i % 17 == 0) cache.Drop(key);
      }
    });
  }
  for (int i = 0; i < 50; ++i) TrimPassCache(dir_.path(), {.bytes_max = 3'000}, false);
  workers.clear();
  EXPECT_GT(found, 0);
  ClearPassCacheParts(dir_.path(), "");
  for (int i = 0; i < 5; ++i) {
    const std::string key = "k" + std::to_string(i);
    const auto entry = cache_.Find(key);
    if (entry) {
      EXPECT_EQ(ReadFile(entry->folder / "model.onnx"), std::string(1'000, key[1]));
    }
  }
}

}  // namespace
}  // namespace pared
