// The commands of `pare`, free of how the command line is read: each takes its options and gives
// the process's exit code. All throw Error.

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "client/daemon.h"
#include "client/terminal.h"

namespace pared {

struct Context {
  const Daemon& daemon;
  const Terminal& terminal;
  bool is_json = false;  // write the daemon's answer, one JSON text a line, and nothing else
};

// submit.cc

struct SubmitOptions {
  std::string spec_file;            // "-": standard input; empty: the flags say all
  std::string model;                // a registered name, or an ONNX file to register
  std::string as;                   // the name for that file; empty: from the file's own
  std::vector<std::string> chains;  // "NAME: PASS option=value ... | PASS ..."
  std::vector<std::string> passes;  // "PASS option=value ...": one chain of all of them
  std::vector<std::pair<std::string, Json>> fields;  // JSON Pointer and value, over all else
  std::string key;                                   // Idempotency-Key; empty: none
  bool is_dry = false;                               // write the spec and send nothing
  bool has_watch = false;                            // then watch the job
};

// The spec that the options ask for. `passes` is what GET /v1/passes lists: it tells a text from a
// number.
Json MakeSpec(const SubmitOptions& options, const Json& passes);

int Submit(const Context& context, const SubmitOptions& options);

// push.cc

struct PushOptions {
  std::string file;               // the ONNX file
  std::string as;                 // empty: NameOfFile
  std::vector<std::string> data;  // its files of external data; empty: FILE.data where that exists
};
// A file's name as one that models may have.
std::string NameOfFile(const std::string& file);
// Registers a file as a model; gives its record. What is large, or comes with data, goes up in
// parts, and what had arrived of it before counts.
Json RegisterFile(const Context& context, const PushOptions& options);
int Push(const Context& context, const PushOptions& options);

// A spec file, "-" for standard input. Throws kNotFound, kInvalidArgument.
Json ReadSpec(const std::string& file);

// batch.cc

struct BatchOptions {
  std::string spec_file;  // the body of POST /v1/batches
  int64_t batch = 0;      // in place of a new one: one that was begun before
  bool is_dry = false, has_force = false, has_no_wait = false;
};
// Until the batch has ended: kExitDone, kExitWorse or kExitFailed.
int Batch(const Context& context, const BatchOptions& options);
// A job's log as the daemon keeps it: a JSON object a line.
int Log(const Context& context, int64_t job);

// jobs.cc

struct ListOptions {
  std::string what = "jobs";  // jobs, models, datasets, experiments
  std::string state;
  int64_t limit = 50;
};
int List(const Context& context, const ListOptions& options);
int ShowJob(const Context& context, int64_t job);
int Cancel(const Context& context, const std::vector<int64_t>& jobs);
int ListPasses(const Context& context, const std::string& pass);  // empty: all, in short

// watch.cc

// Until the job has ended: kExitDone, kExitJobFailed, kExitJobCancelled or kExitGoalNotMet.
int Watch(const Context& context, int64_t job);
// The same without a word. The job as GET /v1/jobs/{id} gives it.
Json WaitForEnd(const Context& context, int64_t job);

// search.cc

// A job's "search" as GET /v1/jobs/{id} gives it.
void WriteSearch(const Terminal& terminal, const Json& search);
// What the job's search looks for, as `pare pareto` takes it; empty: it has no search.
std::string ObjectivesOf(const Json& job);

// history.cc

struct HistoryOptions {
  std::string filter, sort = "-id", columns, experiment, model, chain;
  int64_t job = 0;  // 0: all
  int64_t limit = 50;
  std::string format = "table";  // table, csv, json, jsonl
  bool has_count = false;
};
int History(const Context& context, const HistoryOptions& options);
// Runs as GET /v1/runs gives them, one a row, with the metrics that any of them has.
void WriteRuns(const Terminal& terminal, const Json& runs);

struct ParetoOptions {
  std::string objectives;  // empty: the job's search says, else size_bytes:min,top1:max
  std::string filter, experiment, model, chain;
  int64_t job = 0;
  bool has_dominated = true;  // in the plot
  bool has_plot = true;
};
int Pareto(const Context& context, const ParetoOptions& options);

// runs.cc

int Show(const Context& context, int64_t run, bool has_reports);
struct CompareOptions {
  std::vector<int64_t> runs;
  bool is_whole = false;  // all differences of the reports, too
};
int Compare(const Context& context, const CompareOptions& options);
int Tag(const Context& context, int64_t run, const std::vector<std::string>& tags);
int Note(const Context& context, int64_t run, const std::string& text);
struct RemoveOptions {
  std::vector<int64_t> runs;
  std::string experiment, model;
};
int Remove(const Context& context, const RemoveOptions& options);

// rerun.cc

// Does the run's chain again, on the bytes that the run was made from, and compares: kExitDone
// where the model came out the same, byte for byte, kExitDiffers where it did not.
int Rerun(const Context& context, int64_t run);

// export.cc

struct ExportOptions {
  std::string url;         // of the MLflow tracking server
  std::string experiment;  // there; made where it is missing
  std::string filter, only_experiment, model;
  int64_t limit = 1'000;
};
// Puts runs on an MLflow tracking server. A run that is there already is brought up to date.
int ExportToMlflow(const Context& context, const ExportOptions& options);

// pull.cc

struct PullOptions {
  int64_t run = 0;
  std::string form = "onnx";  // or "tflite"
  std::string out;            // file or folder; empty: the name that the daemon gives, here
};
// Writes the model, with its external data, and checks that it is what the run recorded.
int Pull(const Context& context, const PullOptions& options);

}  // namespace pared
