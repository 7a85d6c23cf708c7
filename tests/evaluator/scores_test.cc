// Against the answers of scikit-learn, SciPy, pycocotools, OpenCV and rapidfuzz in scores.json,
// which make_scores.py writes.

#include "evaluator/scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "config/edit_distance.h"
#include "config/fields.h"
#include "evaluator/detection.h"
#include "evaluator/metrics.h"
#include "tests/testing/matchers.h"

namespace pared {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr double kRounding = 1e-12;

Json Answers(const char* part) {
  std::ifstream in("tests/evaluator/scores.json");
  std::string text((std::istreambuf_iterator<char>(in)), {});
  return ParseJson(text).at(part);
}

TEST(ScoreClasses, IsScikitLearns) {
  for (const Json& answer : Answers("classes")) {
    const auto labels = answer.at("labels").get<std::vector<int64_t>>();
    const auto predictions = answer.at("predictions").get<std::vector<int64_t>>();
    const ClassScores scores = ScoreClasses(labels, predictions);
    EXPECT_NEAR(scores.accuracy, answer.at("accuracy").get<double>(), kRounding);
    EXPECT_NEAR(scores.mean_class_accuracy, answer.at("mean_class_accuracy").get<double>(),
                kRounding);
    EXPECT_NEAR(scores.f1_macro, answer.at("f1_macro").get<double>(), kRounding);
    const auto count = static_cast<double>(labels.size());
    const Interval interval = WilsonInterval(scores.accuracy * count, count);
    EXPECT_NEAR(interval.low, answer.at("low").get<double>(), 1e-9);
    EXPECT_NEAR(interval.high, answer.at("high").get<double>(), 1e-9);
  }
}

TEST(WilsonInterval, HoldsAtTheEnds) {
  EXPECT_EQ(WilsonInterval(0, 10).low, 0);
  EXPECT_GT(WilsonInterval(0, 10).high, 0.2);
  EXPECT_DOUBLE_EQ(WilsonInterval(10, 10).high, 1);
  EXPECT_EQ(WilsonInterval(0, 0).high, 1);
}

TEST(RocAuc, IsScikitLearnsWithAndWithoutTies) {
  for (const Json& answer : Answers("binary")) {
    const auto labels = answer.at("labels").get<std::vector<int64_t>>();
    const auto scores = answer.at("scores").get<std::vector<double>>();
    EXPECT_NEAR(RocAuc(scores, labels), answer.at("roc_auc").get<double>(), kRounding);
    std::vector<int64_t> predictions;
    for (const double score : scores) predictions.push_back(score >= 0.5 ? 1 : 0);
    EXPECT_NEAR(BinaryF1(labels, predictions), answer.at("f1").get<double>(), kRounding);
  }
  EXPECT_TRUE(std::isnan(RocAuc(std::vector{0.1, 0.2}, std::vector<int64_t>{1, 1})));
}

TEST(KlDivergence, IsScipysAndTakesLogitsToo) {
  for (const Json& answer : Answers("divergence")) {
    const auto p = answer.at("p").get<std::vector<float>>(),
               q = answer.at("q").get<std::vector<float>>();
    EXPECT_NEAR(KlDivergence(p, q), answer.at("kl").get<double>(), 1e-6);
    std::vector<float> logits;
    for (const float x : q) logits.push_back(std::log(x) + 3);
    EXPECT_NEAR(KlDivergence(p, logits), answer.at("kl").get<double>(), 1e-5);
  }
}

TEST(CocoAveragePrecision, IsPycocotools) {
  for (const Json& answer : Answers("detections")) {
    const auto pictures = answer.at("pictures").get<size_t>();
    std::vector<std::vector<Detection>> detections(pictures);
    std::vector<std::vector<LabelledBox>> truth(pictures);
    for (const Json& box : answer.at("truth")) {
      const auto bbox = box.at("bbox").get<std::vector<double>>();
      truth[box.at("image_id").get<size_t>()].push_back({bbox[0], bbox[1], bbox[2], bbox[3],
                                                         box.at("category_id"), box.at("area"),
                                                         box.at("iscrowd") == 1});
    }
    for (const Json& found : answer.at("detections")) {
      const auto bbox = found.at("bbox").get<std::vector<double>>();
      detections[found.at("image_id").get<size_t>()].push_back(
          {bbox[0], bbox[1], bbox[0] + bbox[2], bbox[1] + bbox[3], found.at("score"),
           found.at("category_id")});
    }
    const AveragePrecision precision = CocoAveragePrecision(detections, truth);
    EXPECT_NEAR(precision.map50, answer.at("map50").get<double>(), 1e-9);
    EXPECT_NEAR(precision.map50_95, answer.at("map50_95").get<double>(), 1e-9);
  }
  EXPECT_TRUE(std::isnan(CocoAveragePrecision({{}}, {{}}).map50));
}

TEST(CtcGreedy, JoinsRepeatsAndLeavesBlanksOut) {
  // Best of each row: 1 1 0 1 2 2
  const std::vector<float> scores = {0, 9, 0, 0, 9, 0, 9, 0, 0, 0, 9, 0, 0, 0, 9, 0, 0, 9};
  EXPECT_THAT(CtcGreedy(scores, 3, 0), ElementsAre(1, 1, 2));
}

TEST(EditDistance, CountsEditsOfSequences) {
  const std::vector<int64_t> kitten = {1, 2, 3, 3, 4, 5}, sitting = {6, 2, 3, 3, 2, 5, 7};
  EXPECT_EQ(EditDistance(kitten, sitting), 3);
  EXPECT_EQ(EditDistance({}, sitting), 7);
  EXPECT_EQ(EditDistance(kitten, {}), 6);
}

// Two candidates of class 1 on one place, one of class 0 there too, one elsewhere below the score.
TEST(DecodeYolo, ReadsBothFormsOfHead) {
  const std::vector<std::vector<float>> boxes = {
      {50, 40, 20, 10, 0.1f, 0.8f}, {51, 40, 20, 10, 0.2f, 0.9f}, {50, 40, 20, 10, 0.7f, 0.3f},
      {9, 9, 2, 2, 0.1f, 0.1f},     {80, 80, 4, 4, 0, 0},         {80, 80, 4, 4, 0, 0},
      {80, 80, 4, 4, 0, 0}};
  std::vector<float> planar, rows;
  for (size_t field = 0; field < 6; ++field) {
    for (const auto& box : boxes) planar.push_back(box[field]);
  }
  for (const auto& box : boxes) {
    rows.insert(rows.end(), box.begin(), box.begin() + 4);
    rows.insert(rows.end(), {0.5f, box[4] * 2, box[5] * 2});  // objectness times class
  }
  for (const Tensor& head :
       {Tensor::Make<float>({1, 6, 7}, planar), Tensor::Make<float>({1, 7, 7}, rows)}) {
    DetectionOptions options;
    options.head = head.shape()[1] == 6 ? YoloHead::kAuto : YoloHead::kV5;
    const std::vector<Detection> found = DecodeYolo(head, options, 0.25, false);
    ASSERT_EQ(found.size(), 2u);
    EXPECT_NEAR(found[0].score, 0.9, 1e-6);
    EXPECT_EQ(found[0].category, 1);
    EXPECT_THAT((std::vector{found[0].left, found[0].top, found[0].right, found[0].bottom}),
                ElementsAre(41, 35, 61, 45));
    EXPECT_EQ(found[1].category, 0);
    // Each class of a box by itself: 0.3 of class 1 is covered by the better one, too.
    EXPECT_EQ(DecodeYolo(head, options, 0.25, true).size(), 2u);
    EXPECT_EQ(DecodeYolo(head, options, 0.05, true).size(), 4u);
  }
}

TEST(DecodeYolo, TellsWhichShapesItReads) {
  EXPECT_THAT(
      [] {
        DecodeYolo(Tensor::Make<float>({2, 3}, {0, 0, 0, 0, 0, 0}), {}, 0.1, false);
      },
      ThrowsError(ErrorCode::kInvalidArgument, "detection", HasSubstr("[2, 3]")));
}

TEST(DecodeYolo, TakesSuppressedBoxesAsTheyAre) {
  DetectionOptions options;
  options.head = YoloHead::kEnd;
  const Tensor head = Tensor::Make<float>({1, 2, 6}, {1, 2, 3, 4, 0.6f, 5, 1, 2, 3, 4, 0.9f, 5});
  const std::vector<Detection> found = DecodeYolo(head, options, 0.25, false);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_NEAR(found[0].score, 0.9, 1e-6);
  EXPECT_EQ(found[1].bottom, 4);
}

TEST(CountKept, WantsTheSameClassAndHalfTheArea) {
  const std::vector<Detection> reference = {
      {0, 0, 10, 10, 0.9, 1}, {0, 0, 10, 10, 0.8, 1}, {20, 20, 30, 30, 0.7, 2}};
  EXPECT_EQ(CountKept(reference, reference), 3);
  EXPECT_EQ(CountKept(reference, std::vector<Detection>{{0, 0, 10, 6, 0.9, 1}}), 1);  // serves once
  EXPECT_EQ(CountKept(reference, std::vector<Detection>{{0, 0, 10, 4, 0.9, 1}}), 0);
  EXPECT_EQ(CountKept(reference, std::vector<Detection>{{20, 20, 30, 30, 0.9, 1}}), 0);
}

TEST(ScoreClasses, MeanOfClassesHasTheIntervalOfItsParts) {
  const Json answers = Answers("mean_intervals"), classes = Answers("classes");
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto labels = classes[i].at("labels").get<std::vector<int64_t>>();
    const auto predictions = classes[i].at("predictions").get<std::vector<int64_t>>();
    const Interval interval = ScoreClasses(labels, predictions).mean_class_interval;
    EXPECT_NEAR(interval.low, answers[i].at("low").get<double>(), 1e-9);
    EXPECT_NEAR(interval.high, answers[i].at("high").get<double>(), 1e-9);
  }
}

TEST(RocAuc, TakesWhatIsNoNumberForTheLeastSure) {
  const double nan = std::nan("");
  EXPECT_EQ(RocAuc(std::vector{0.1, nan, 0.9, nan}, std::vector<int64_t>{0, 0, 1, 1}), 0.625);
}

TEST(EditDistance, IsRapidfuzzs) {
  for (const Json& answer : Answers("texts")) {
    const auto wanted = answer.at("wanted").get<std::vector<int64_t>>();
    EXPECT_EQ(EditDistance(answer.at("read").get<std::vector<int64_t>>(), wanted),
              answer.at("errors").get<size_t>());
  }
}

TEST(PsnrDb, IsOpenCvs) {
  for (const Json& answer : Answers("pictures")) {
    const auto target = answer.at("target").get<std::vector<float>>();
    const auto values = answer.at("values").get<std::vector<float>>();
    EXPECT_NEAR(PsnrDb(target, values, answer.at("peak").get<double>()),
                answer.at("psnr_db").get<double>(), 1e-5);
  }
  EXPECT_EQ(PsnrDb(std::vector<float>{1, 0}, std::vector<float>{1.5, -1}, 1), 200);
}

TEST(FidelitySums, AreScikitLearns) {
  for (const Json& answer : Answers("fidelity")) {
    FidelitySums sums;
    double agreeing = 0;
    for (size_t row = 0; row < 5; ++row) {
      const auto reference = answer.at("reference")[row].get<std::vector<float>>();
      const auto output = answer.at("output")[row].get<std::vector<float>>();
      sums.Add(reference, output);
      agreeing += ArgMax(reference) == ArgMax(output) ? 1 : 0;
    }
    EXPECT_NEAR(sums.SqnrDb(), answer.at("sqnr_db").get<double>(), 1e-4);
    EXPECT_NEAR(sums.Cosine(), answer.at("cosine").get<double>(), 1e-7);
    EXPECT_DOUBLE_EQ(agreeing / 5, answer.at("agreement").get<double>());
  }
}

TEST(NearestByCosine, IsScikitLearns) {
  for (const Json& answer : Answers("retrieval")) {
    const auto gallery = answer.at("gallery").get<std::vector<std::vector<float>>>();
    const auto queries = answer.at("queries").get<std::vector<std::vector<float>>>();
    EXPECT_EQ(NearestByCosine(gallery, queries), answer.at("nearest").get<std::vector<int64_t>>());
  }
  const std::vector<std::vector<float>> gallery = {{0, 0}, {2, 0}, {1, 0}}, query = {{1, 0}};
  EXPECT_THAT(NearestByCosine(gallery, query), ElementsAre(1));  // the first of equals
}

TEST(DecodeYolo, KeepsTheBoxesThatOpenCvKeeps) {
  for (const Json& answer : Answers("heads")) {
    const auto rows = answer.at("rows").get<std::vector<std::vector<float>>>();
    const auto boxes = static_cast<int64_t>(rows.size());
    const auto fields = static_cast<int64_t>(rows.front().size());
    std::vector<float> by_box, by_field;
    for (const auto& row : rows) by_box.insert(by_box.end(), row.begin(), row.end());
    for (size_t field = 0; field < rows.front().size(); ++field) {
      for (const auto& row : rows) by_field.push_back(row[field]);
    }
    const Tensor head = answer.at("has_objectness").get<bool>()
                            ? Tensor::Make<float>({1, boxes, fields}, std::move(by_box))
                            : Tensor::Make<float>({1, fields, boxes}, std::move(by_field));
    DetectionOptions options;
    options.iou_max = 0.45;
    const std::vector<Detection> found = DecodeYolo(head, options, 0.25, false);
    const Json& kept = answer.at("kept");
    ASSERT_EQ(found.size(), kept.size());
    for (size_t i = 0; i < found.size(); ++i) {
      EXPECT_NEAR(found[i].score, kept[i].at("score").get<double>(), 1e-6);
      EXPECT_EQ(found[i].category, kept[i].at("category").get<int64_t>());
      EXPECT_NEAR(found[i].left, kept[i].at("left").get<double>(), 1e-4);
      EXPECT_NEAR(found[i].top, kept[i].at("top").get<double>(), 1e-4);
      EXPECT_NEAR(found[i].right, kept[i].at("right").get<double>(), 1e-4);
      EXPECT_NEAR(found[i].bottom, kept[i].at("bottom").get<double>(), 1e-4);
    }
  }
}

}  // namespace
}  // namespace pared
