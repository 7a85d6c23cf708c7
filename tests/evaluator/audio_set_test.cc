#include "evaluator/audio_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "evaluator/dataset.h"
#include "tests/testing/matchers.h"
#include "tests/testing/models.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/wav.h"

namespace pared {
namespace {

using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::HasSubstr;

std::vector<float> Sound(const std::string& wav, Mixing mixing = Mixing::kMean) {
  const auto bytes = std::as_bytes(std::span(wav));
  return ReadSound(bytes, "a.wav", 0, ReadSoundInfo(bytes, "a.wav").length, mixing);
}

TEST(ReadSound, ScalesIntegersOfEachWidthByTheirRange) {
  EXPECT_THAT(Sound(Wav({.bits = 8}, "\x00\x80\xc0"s)), ElementsAre(-1, 0, 0.5f));
  EXPECT_THAT(Sound(Wav({}, Pcm16({-32768, 0, 16384, 1}))), ElementsAre(-1, 0, 0.5f, 1.0f / 32768));
  EXPECT_THAT(Sound(Wav({.bits = 24}, Little(0x800000, 3) + Little(1, 3) + Little(0x7fffff, 3))),
              ElementsAre(-1, 1.0f / 8388608, 8388607.0f / 8388608));
  EXPECT_THAT(Sound(Wav({.bits = 32}, Little(0x80000000, 4) + Little(0x20000000, 4))),
              ElementsAre(-1, 0.25f));
  EXPECT_THAT(Sound(Wav({.code = 3, .bits = 32}, Little(std::bit_cast<uint32_t>(-1.75f), 4))),
              ElementsAre(-1.75f));
  EXPECT_THAT(Sound(Wav({.code = 3, .bits = 64}, Little(std::bit_cast<uint64_t>(0.375), 8))),
              ElementsAre(0.375f));
}

TEST(ReadSound, MixesChannelsToTheirMeanOrTakesTheFirst) {
  const std::string stereo = Wav({.channels = 2}, Pcm16({16384, 0, -32768, 16384}));
  EXPECT_THAT(Sound(stereo), ElementsAre(0.25f, -0.25f));
  EXPECT_THAT(Sound(stereo, Mixing::kFirst), ElementsAre(0.5f, -1));
}

TEST(ReadSound, IsZeroBeyondBothEnds) {
  const std::string wav = Wav({}, Pcm16({16384, -16384}));
  EXPECT_THAT(ReadSound(std::as_bytes(std::span(wav)), "a.wav", -2, 5, Mixing::kMean),
              ElementsAre(0, 0, 0.5f, -0.5f, 0));
}

TEST(ReadSound, TellsWhatIsWrongWhileAnotherThreadReads) {
  const std::string good = Wav({}, Pcm16({1})), cut = Wav({}, Pcm16({1, 2})).substr(0, 30);
  const std::jthread other([&](std::stop_token stop) {
    while (!stop.stop_requested()) Sound(good);
  });
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_THAT([&] { Sound(cut); },
                ThrowsError(ErrorCode::kInvalidArgument, "a.wav", HasSubstr("No 'data' chunk")));
  }
}

struct BadWav {
  const char* name;
  std::string bytes;
  ErrorCode code;
  const char* says;
};

class BadWavTest : public testing::TestWithParam<BadWav> {};

TEST_P(BadWavTest, IsRefusedByItsName) {
  EXPECT_THAT([&] { Sound(GetParam().bytes); },
              ThrowsError(GetParam().code, "a.wav", HasSubstr(GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadWavTest,
    testing::Values(
        BadWav{"empty", "", ErrorCode::kInvalidArgument, "no WAV file"},
        BadWav{"flac", "fLaC" + std::string(64, '\0'), ErrorCode::kInvalidArgument, "no WAV file"},
        BadWav{"cut", Wav({}, Pcm16({1, 2})).substr(0, 30), ErrorCode::kInvalidArgument, "damaged"},
        BadWav{"a_law", Wav({.code = 6, .bits = 8}, "\x55\x55"), ErrorCode::kUnsupported,
               "compressed"},
        BadWav{"channels", Wav({.channels = 100}, std::string(400, '\0')),
               ErrorCode::kInvalidArgument, "100 channels"}),
    [](const auto& tested) { return tested.param.name; });

// Files a.wav of 1, 2, ... 10 and b.wav of 11, 12, 13 steps of 1/32768.
class AudioSetTest : public testing::Test {
 protected:
  AudioSetTest() {
    WriteFile(dir_.path() / "a.wav", Wav({}, Pcm16({1, 2, 3, 4, 5, 6, 7, 8, 9, 10})));
    WriteFile(dir_.path() / "b.wav", Wav({}, Pcm16({11, 12, 13})));
  }

  AudioSet Open(const std::string& fields) const {
    return AudioSet::Open(ParseJson("{\"rate\": 8000" + fields + "}"), dir_.path());
  }

  // In steps.
  static std::vector<int> Steps(const AudioSet& set, int64_t sample) {
    const Tensor frame = set.Prepare(sample);
    std::vector<int> steps;
    for (const float value : frame.data<float>())
      steps.push_back(static_cast<int>(std::lround(value * 32768)));
    return steps;
  }

  TempDir dir_;
};

TEST_F(AudioSetTest, CutsFramesByTheirHopAndDropsTheRest) {
  const AudioSet set = Open(R"(, "frame": 3, "hop": 2)");
  EXPECT_EQ(set.count(), 4 + 1);
  EXPECT_THAT(Steps(set, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(Steps(set, 3), ElementsAre(7, 8, 9));
  EXPECT_THAT(Steps(set, 4), ElementsAre(11, 12, 13));
  EXPECT_THAT(set.first_samples(), ElementsAre(0, 4));
}

TEST_F(AudioSetTest, FillsTheLastFrameUpWithZeros) {
  const AudioSet set = Open(R"(, "frame": 4, "tail": "pad")");
  EXPECT_EQ(set.count(), 3 + 1);
  EXPECT_THAT(Steps(set, 2), ElementsAre(9, 10, 0, 0));
  EXPECT_THAT(Steps(set, 3), ElementsAre(11, 12, 13, 0));
}

TEST_F(AudioSetTest, PutsZerosAheadOfEachFile) {
  const AudioSet set = Open(R"(, "frame": 5, "hop": 3, "before": 2)");
  EXPECT_EQ(set.count(), 3 + 1);
  EXPECT_THAT(Steps(set, 0), ElementsAre(0, 0, 1, 2, 3));
  EXPECT_THAT(Steps(set, 1), ElementsAre(2, 3, 4, 5, 6));
  EXPECT_THAT(Steps(set, 3), ElementsAre(0, 0, 11, 12, 13));
}

TEST_F(AudioSetTest, MakesAFileASampleInTheLayoutAskedFor) {
  const AudioSet set = Open(R"(, "layout": "ntc", "gain": 2)");
  EXPECT_EQ(set.count(), 2);
  EXPECT_THAT(set.Prepare(1).shape(), ElementsAre(3, 1));
  EXPECT_THAT(Steps(set, 1), ElementsAre(22, 24, 26));
  EXPECT_THAT(Open(R"(, "layout": "nct")").Prepare(1).shape(), ElementsAre(1, 3));
}

TEST_F(AudioSetTest, GivesEachFrameTheClassOfItsFile) {
  WriteFile(dir_.path() / "files.txt", "b.wav 4\na.wav 2\n");
  const AudioSet set = Open(R"(, "list": "files.txt", "frame": 3)");
  ASSERT_TRUE(set.has_labels());
  EXPECT_EQ(set.label(0), 4);
  EXPECT_EQ(set.label(1), 2);
  EXPECT_EQ(set.label(3), 2);
}

TEST_F(AudioSetTest, TellsWhichFileDoesNotFit) {
  EXPECT_THAT([&] { Open(R"(, "frame": 4)"); },
              ThrowsError(ErrorCode::kInvalidArgument, (dir_.path() / "b.wav").string(),
                          HasSubstr("has 3 values, too few for a frame")));
  WriteFile(dir_.path() / "b.wav", Wav({.rate = 16000}, Pcm16({1})));
  EXPECT_THAT([&] { Open(""); },
              ThrowsError(ErrorCode::kInvalidArgument, (dir_.path() / "b.wav").string(),
                          HasSubstr("16000 values a second, the dataset says 8000")));
  EXPECT_THAT([&] { AudioSet::Open(ParseJson("{}"), dir_.path()); },
              ThrowsError(ErrorCode::kInvalidArgument, "/audio/rate"));
  EXPECT_THAT([&] { Open(R"(, "folder": "..")"); },
              ThrowsError(ErrorCode::kInvalidArgument, "/audio/folder"));
}

TEST_F(AudioSetTest, IsADatasetWhoseDigestTellsOneValue) {
  WriteFile(dir_.path() / "dataset.json", R"({"audio": {"rate": 8000, "frame": 3}})");
  const Dataset dataset = Dataset::Open(dir_.path());
  EXPECT_EQ(dataset.sample_count(), 4);
  EXPECT_THAT(dataset.sequence_starts(), ElementsAre(0, 3));
  const Model model = ModelFromText("g (float[N,4] x) => (float y) { y = ReduceSum(x) }");
  EXPECT_THAT([&] { dataset.Sample(0, model.graph.inputs); },
              ThrowsError(ErrorCode::kInvalidArgument, "input x",
                          "axis 1: the dataset has 3, the model wants 4"));
  const std::string digest = dataset.Digest();
  EXPECT_EQ(Dataset::Open(dir_.path()).Digest(), digest);
  WriteFile(dir_.path() / "b.wav", Wav({}, Pcm16({11, 12, 14})));
  EXPECT_NE(Dataset::Open(dir_.path()).Digest(), digest);
}

}  // namespace
}  // namespace pared
