// What the commands print, word for word, and what they exit with.

#include <gmock/gmock.h>

#include <thread>

#include "tests/client/client_fixture.h"

namespace pared {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(ClientTest, HistoryShowsTheNewestFirstWithTheMetricsThereAre) {
  RecordHistory();
  EXPECT_EQ(Pare({"history"}).out,
            "id  experiment  model  chain       top1  size_bytes  size_ratio\n"
            " 4  nightly     mnist  fp16      0.9932    14.33 kB       0.542\n"
            " 3  nightly     mnist  p80        0.965     9.12 kB       0.345\n"
            " 2  nightly     mnist  int8      0.9934    12.67 kB       0.479\n"
            " 1  nightly     mnist  baseline  0.9936    26.45 kB           1\n");
}

TEST_F(ClientTest, HistoryFiltersSortsAndChoosesColumns) {
  RecordHistory();
  const Said said = Pare({"history", "size_ratio <= 0.5 and top1_drop < 0.01", "-s", "size_bytes",
                          "--columns", "id,chain,size_bytes", "--count"});
  EXPECT_EQ(said.out,
            "id  chain  size_bytes\n"
            " 2  int8     12.67 kB\n"
            "1 runs match\n");
}

TEST_F(ClientTest, HistoryWritesCsvOverSeveralPagesWithOneHead) {
  for (int i = 0; i < 600; ++i) Recorded({Record("a", {}), Record("b", {})});
  const Said said =
      Pare({"history", "-f", "csv", "-s", "id", "--columns", "id,chain", "-n", "5000"});
  EXPECT_THAT(said.out, StartsWith("id,chain\r\n1,a\r\n2,b\r\n3,a\r\n"));
  EXPECT_EQ(std::ranges::count(said.out, '\n'), 1201);
  EXPECT_THAT(said.out, testing::EndsWith("\r\n1199,a\r\n1200,b\r\n"));
}

TEST_F(ClientTest, HistoryPointsAtTheFaultInAFilter) {
  RecordHistory();
  const Said said = Pare({"history", "top1 < 0.9 an size_bytes < 1"});
  EXPECT_EQ(said.code, kExitRefused);
  EXPECT_EQ(said.err, "pare: filter:12: needs \"and\", \"or\" or the end here, not \"an\"\n");
}

TEST_F(ClientTest, ParetoShowsTheFrontAndItsKneeAndAPlot) {
  RecordHistory();
  EXPECT_EQ(Pare({"pareto"}).out,
            "      id  model  chain     size_bytes    top1\n"
            "       3  mnist  p80          9.12 kB   0.965\n"
            "knee   2  mnist  int8        12.67 kB  0.9934\n"
            "       1  mnist  baseline    26.45 kB  0.9936\n"
            "\n"
            "top1\n"
            "0.9936 |               O     .                                                 *\n"
            "       |\n       |\n       |\n       |\n       |\n       |\n       |\n       |\n"
            "       |\n       |\n       |\n       |\n       |\n       |\n"
            " 0.965 |*\n"
            "       +------------------------------------------------------------------------\n"
            "        9.12 kB                                                         26.45 kB\n"
            "                                       size_bytes\n"
            "* front  O knee  . dominated\n"
            "4 candidates, 0 of them left out for lack of an objective or NaN\n");
}

TEST_F(ClientTest, CompareShowsWhatDiffers) {
  RecordHistory();
  EXPECT_EQ(Pare({"compare", "2", "3"}).out,
            "metrics        run 2    run 3    change\n"
            "size_bytes  12.67 kB  9.12 kB  -3.55 kB\n"
            "size_ratio     0.479    0.345    -0.134\n"
            "top1          0.9934    0.965   -0.0284\n"
            "\n"
            "steps             run 2        run 3\n"
            "int8/granularity  per_channel  -\n"
            "int8/pass         int8         -\n"
            "p80/granularity   -            per_channel\n"
            "p80/pass          -            p80\n"
            "\n"
            "chain  run 2  run 3\n"
            "chain  int8   p80\n"
            "\n"
            "8 values differ, 12 are the same\n");
}

TEST_F(ClientTest, ShowTellsWhereARunCameFrom) {
  RunRecord record = Record("int8", {{"top1", 0.9934}});
  record.reports = {{{"pass", "int8"},
                     {"seconds", 0.25},
                     {"report", {{"changed", {"a", "b"}}, {"warnings", {"slower"}}}}}};
  Recorded({record});
  Pare({"tag", "1", "keep=yes"});
  Pare({"note", "1", "the one to ship"});
  const std::string out = Pare({"show", "1"}).out;
  EXPECT_THAT(out, StartsWith("run        1 of job 1\nexperiment nightly\nmodel      mnist\n"));
  EXPECT_THAT(out, HasSubstr("machine    Test CPU, avx2, pared 0.1.0\n"
                             "note       the one to ship\n"
                             "tag        keep=yes\n"
                             "passes\n"
                             "  1. int8 granularity=per_channel\n"
                             "reports\n"
                             "  int8: 0.25 s; changed 2\n"
                             "  warning: slower\n"
                             "metric   value\n"
                             "top1    0.9934\n"));
}

TEST_F(ClientTest, TagsAreSetAndRemoved) {
  RecordHistory();
  Pare({"tag", "2", "keep=yes", "for=phone"});
  EXPECT_EQ(Pare({"tag", "2", "for="}).code, kExitDone);
  EXPECT_EQ(Pare({"history", "tags.keep = \"yes\"", "--columns", "id,tags.for"}).out,
            "id  tags.for\n 2         -\n");
  EXPECT_THAT(Pare({"tag", "2", "keep"}).err, HasSubstr("a tag is written NAME=VALUE"));
}

TEST_F(ClientTest, RemoveDeletesRunsAndExperiments) {
  RecordHistory();
  EXPECT_EQ(Pare({"rm", "1", "2"}).out, "2 runs deleted\n");
  EXPECT_EQ(Pare({"rm", "--experiment", "nightly"}).out, "2 runs deleted\n");
  EXPECT_EQ(Pare({"history"}).out, "no run matches\n");
  EXPECT_EQ(Pare({"rm", "1"}).code, kExitNotFound);
  EXPECT_EQ(Pare({"rm", "--model", "mnist"}).out, "1 model deleted\n");
  EXPECT_EQ(Pare({"rm", "--model", "mnist"}).code, kExitNotFound);
}

TEST_F(ClientTest, SubmitsFromFlags) {
  const Said said =
      Pare({"submit", "-m", "mnist", "-e", "try", "--priority", "5", "-d", "digits", "--chain",
            "p80: magnitude_prune sparsity=0.8 pattern=2x1 | cast_fp16", "--pass", "cast_fp16"});
  EXPECT_EQ(said.out, "job 1 queued\nfollow it with: pare watch 1\n") << said.err;
  const Json spec = store_.GetJob(1)->spec;
  EXPECT_EQ(spec["experiment"], "try");
  EXPECT_EQ(spec["priority"], 5);
  EXPECT_EQ(spec["evaluate"]["dataset"], "digits");
  EXPECT_EQ(spec["chains"][0]["name"], "p80");
  EXPECT_EQ(spec["chains"][0]["passes"][0]["sparsity"], 0.8);
  EXPECT_EQ(spec["chains"][0]["passes"][0]["pattern"], "2x1");
  EXPECT_EQ(spec["chains"][1]["name"], "cast_fp16");
}

TEST_F(ClientTest, FlagsWinOverASpecFile) {
  WriteFile(folder_ / "spec.json", Spec().dump());
  const Said said = Pare(
      {"submit", (folder_ / "spec.json").string(), "-e", "other", "--pass", "cast_fp16", "--dry"});
  const Json spec = ParseJson(said.out);
  EXPECT_EQ(spec["experiment"], "other");
  EXPECT_EQ(spec["model"], "mnist");
  EXPECT_EQ(spec["chains"].dump(), R"([{"name":"cast_fp16","passes":[{"pass":"cast_fp16"}]}])");
  EXPECT_FALSE(store_.GetJob(1).has_value());
}

TEST_F(ClientTest, AKeySubmitsOnce) {
  for (int i = 0; i < 2; ++i) {
    const Said said =
        Pare({"submit", "-m", "mnist", "--pass", "cast_fp16", "--key", "k", "--json"});
    EXPECT_EQ(ParseJson(said.out).at("id"), 1);
  }
  const Said other = Pare({"submit", "-m", "mnist", "--pass", "fold_batch_norm", "--key", "k"});
  EXPECT_EQ(other.code, kExitConflict);
}

TEST_F(ClientTest, SubmitRegistersAFileFirst) {
  WriteFile(folder_ / "My Net.v2.onnx", Model());
  const Said said =
      Pare({"submit", "-m", (folder_ / "My Net.v2.onnx").string(), "--pass", "cast_fp16"});
  EXPECT_EQ(said.code, kExitDone) << said.err;
  EXPECT_EQ(store_.GetJob(1)->spec["model"], "my-net.v2");
  EXPECT_EQ(store_.GetModel("my-net.v2")->bytes, static_cast<int64_t>(Model().size()));
}

struct Misuse {
  std::vector<std::string> arguments;
  int code;
  const char* said;
};
class MisuseTest : public ClientTest, public testing::WithParamInterface<Misuse> {};

TEST_P(MisuseTest, IsToldWithWhatToDo) {
  const Said said = Pare(GetParam().arguments);
  EXPECT_EQ(said.code, GetParam().code);
  EXPECT_THAT(said.err, HasSubstr(GetParam().said));
  EXPECT_EQ(said.out, "");
}

INSTANTIATE_TEST_SUITE_P(
    All, MisuseTest,
    testing::Values(
        Misuse{{"histroy"}, kExitRefused, "did you mean \"history\"?"},
        Misuse{{"history", "--colums", "id"}, kExitRefused, "did you mean \"--columns\"?"},
        Misuse{{}, kExitRefused, "subcommand is required"},
        Misuse{{"show", "7"}, kExitNotFound, "there is no run 7; `pare history` lists runs"},
        Misuse{{"watch", "7"}, kExitNotFound, "there is no job 7; `pare ls` lists jobs"},
        Misuse{{"passes", "quantise_int8"}, kExitNotFound, "did you mean \"quantize_int8\"?"},
        Misuse{{"submit", "--pass", "cast_fp16"}, kExitRefused, "/model: is missing"},
        Misuse{{"submit", "-m", "mnits", "--pass", "cast_fp16"},
               kExitRefused,
               "no model is registered as \"mnits\"; did you mean \"mnist\"?"},
        Misuse{{"submit", "-m", "mnist", "--pass", "magnitude_prune sparsity=1.8"},
               kExitRefused,
               "/chains/0/passes/0/sparsity: must be between"},
        Misuse{{"submit", "-m", "mnist", "--pass", "magnitude_prune sparsity=much"},
               kExitRefused,
               "sparsity: must be a number, is \"much\""},
        Misuse{{"submit", "-m", "mnist", "--pass", "magnitude_prune sparsity"},
               kExitRefused,
               "an option of a pass is written option=value"},
        Misuse{
            {"submit", "-m", "mnist", "--chain", "cast_fp16"}, kExitRefused, "a chain is written"},
        Misuse{{"submit", "/nowhere/spec.json"}, kExitNotFound, "cannot read the spec"},
        Misuse{{"push", "/nowhere/m.onnx"}, kExitNotFound, "there is no such file"},
        Misuse{{"--token-file", "/nowhere", "ls"}, kExitNotFound, "holds no token"},
        Misuse{{"compare", "1"}, kExitRefused, "runs"}));

TEST_F(ClientTest, SaysHowToStartADaemonThatIsNotThere) {
  server_->Stop();
  const Said said = Pare({"ls"});
  EXPECT_EQ(said.code, kExitUnreachable);
  EXPECT_THAT(said.err, AllOf(HasSubstr("cannot connect"), HasSubstr("`pared serve`"),
                              HasSubstr("PARED_URL")));
}

TEST_F(ClientTest, SaysWhichTokenIsWanted) {
  // The digest of "secret".
  const std::string digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
  settings_.tokens = {{.name = "reader", .sha256 = digest, .scope = TokenScope::kRead}};
  EXPECT_EQ(Pare({"ls"}).code, kExitForbidden);
  EXPECT_THAT(Pare({"ls"}).err, HasSubstr("set PARED_TOKEN, or give --token-file"));
  WriteFile(folder_ / "token", "secret\n");
  const std::string file = (folder_ / "token").string();
  EXPECT_EQ(Pare({"--token-file", file, "ls"}).code, kExitDone);
  const Said write = Pare({"--token-file", file, "cancel", "1"});
  EXPECT_EQ(write.code, kExitForbidden);
  EXPECT_THAT(write.err, HasSubstr("a token with the scope write"));
}

TEST_F(ClientTest, ErrorsAreJsonWhereJsonIsAskedFor) {
  const Said said = Pare({"show", "7", "--json"});
  EXPECT_EQ(ParseJson(said.err)["error"]["exit_code"], kExitNotFound);
  EXPECT_EQ(said.out, "");
}

TEST_F(ClientTest, JsonIsOneValueALine) {
  RecordHistory();
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"ls", "--json"},
                                             {"ls", "models", "--json"},
                                             {"ls", "datasets", "--json"},
                                             {"ls", "experiments", "--json"},
                                             {"job", "1", "--json"},
                                             {"show", "1", "--json"},
                                             {"pareto", "--json"},
                                             {"compare", "1", "2", "--json"},
                                             {"passes", "--json"},
                                             {"passes", "cast_fp16", "--json"},
                                             {"tag", "1", "a=b", "--json"},
                                             {"note", "1", "x", "--json"},
                                             {"rm", "1", "--json"}}) {
    const Said said = Pare(arguments);
    EXPECT_EQ(std::ranges::count(said.out, '\n'), 1) << arguments[0];
    EXPECT_TRUE(ParseJson(said.out).is_object()) << arguments[0];
  }
}

TEST_F(ClientTest, ANoteDoesNotSteerTheTerminal) {
  RecordHistory();
  Pare({"note", "2", "\x1b[2Jgone\nx"});
  EXPECT_THAT(Pare({"show", "2"}).out, HasSubstr("note        [2Jgone x\n"));
}

TEST_F(ClientTest, CancelsAndListsByState) {
  store_.Submit(Spec());
  store_.Submit(Spec());
  EXPECT_EQ(Pare({"cancel", "1"}).out, "job 1 cancelled\n");
  EXPECT_EQ(Pare({"cancel", "1"}).code, kExitConflict);
  const Json jobs = ParseJson(Pare({"ls", "--json"}).out)["jobs"];
  ASSERT_EQ(jobs.size(), 2u);
  EXPECT_EQ(jobs[0]["id"], 2);  // the newest first
  EXPECT_EQ(ParseJson(Pare({"ls", "--state", "cancelled", "--json"}).out)["jobs"].size(), 1u);
}

TEST_F(ClientTest, CompletesCommandsOptionsAndNames) {
  EXPECT_EQ(Pare({"complete", "--", "hi"}).out, "history\n");
  EXPECT_EQ(Pare({"complete", "--", "submit", "--model", ""}).out, "mnist\n");
  EXPECT_EQ(Pare({"complete", "--", "submit", "--dataset", "d"}).out, "digits\n");
  EXPECT_EQ(Pare({"complete", "--", "submit", "--calibration-s"}).out, "--calibration-samples\n");
  EXPECT_EQ(Pare({"complete", "--", "passes", "cast"}).out, "cast_fp16\n");
  EXPECT_EQ(Pare({"complete", "--", "ls", "ex"}).out, "experiments\n");
  EXPECT_THAT(Pare({"completion", "bash"}).out, HasSubstr("complete -o default -F _pare pare"));
}

}  // namespace
}  // namespace pared
