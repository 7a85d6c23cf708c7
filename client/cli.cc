// Every command and option, once. CLI11 stands in no other file.

#include "client/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <utility>

#include "client/commands.h"
#include "client/completion.h"

namespace pared {
namespace {

using Command = std::function<int(const Context&)>;

struct Globals {
  Access access;
  std::string token_file;
  std::string colour = "auto";
  bool is_json = false;
};

// The command that was named, set while the line is read. Options live until it has run.
class CommandLine {
 public:
  CommandLine();

  CLI::App app{"Asks a pared daemon to make models small and fast, and shows the results.", "pare"};
  Globals globals;
  Command command;

 private:
  CLI::App* Add(const std::string& name, const std::string& help, Command run);
  void AddGlobals();
  void AddSubmit();
  void AddSpecFields(CLI::App* submit);
  void AddJobs();
  void AddBatch();
  void AddQueries();
  void AddRuns();
  void AddCompletion();

  SubmitOptions submit_;
  PushOptions push_;
  BatchOptions batch_;
  ListOptions list_;
  HistoryOptions history_;
  ParetoOptions pareto_;
  CompareOptions compare_;
  RemoveOptions remove_;
  PullOptions pull_;
  ExportOptions export_;
  std::vector<int64_t> ids_;
  int64_t id_ = 0;
  bool flag_ = false;
  std::string text_;
  std::vector<std::string> words_;
};

CommandLine::CommandLine() {
  app.set_version_flag("--version", "pare " PARED_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 refused or wrong usage, 3 no daemon, 4 not allowed,\n"
      "5 not there, 6 conflict, 10 the job failed, 11 it was cancelled, 12 a rerun differs.");
  AddGlobals();
  AddSubmit();
  AddJobs();
  AddBatch();
  AddQueries();
  AddRuns();
  AddCompletion();
}

CLI::App* CommandLine::Add(const std::string& name, const std::string& help, Command run) {
  CLI::App* sub = app.add_subcommand(name, help);
  sub->fallthrough();
  sub->callback([this, run = std::move(run)] { command = run; });
  return sub;
}

void CommandLine::AddGlobals() {
  app.add_option("--url", globals.access.url, "Where the daemon is (PARED_URL)")
      ->envname("PARED_URL")
      ->capture_default_str();
  app.add_option("--token-file", globals.token_file,
                 "A file that holds the token; else PARED_TOKEN holds it");
  app.add_option("--ca", globals.access.ca_file,
                 "PEM file of the authorities to trust for https (PARED_CA)")
      ->envname("PARED_CA");
  app.add_flag("--json", globals.is_json, "Write JSON, one value a line, and nothing else");
  app.add_option("--color", globals.colour, "Colours: auto, always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}));
}

void CommandLine::AddSubmit() {
  CLI::App* submit = Add("submit", "Submit a job: a spec file, or flags, or flags over a file",
                         [this](const Context& c) { return Submit(c, submit_); });
  submit->add_option("spec", submit_.spec_file, "The spec as JSON; - reads standard input");
  submit->add_option("-m,--model", submit_.model,
                     "A registered model, or an ONNX file, which is registered first");
  submit->add_option("--as", submit_.as, "The name for that file; else it is made from the file's");
  submit
      ->add_option("--pass", submit_.passes,
                   "\"PASS option=value ...\"; all of them make one chain")
      ->allow_extra_args(false);
  submit->add_option("--chain", submit_.chains, "\"NAME: PASS option=value ... | PASS ...\"")
      ->allow_extra_args(false);
  submit->add_option("--key", submit_.key, "Submit at most once under this idempotency key");
  submit->add_flag("--dry", submit_.is_dry, "Write the spec and send nothing");
  submit->add_flag("-w,--watch", submit_.has_watch, "Then watch the job to its end");
  AddSpecFields(submit);

  CLI::App* push = Add("push", "Register an ONNX file as a model",
                       [this](const Context& c) { return Push(c, push_); });
  push->add_option("file", push_.file, "The file, ONNX or TensorFlow Lite")->required();
  push->add_option("--as", push_.as, "Its name; else it is made from the file's");
  push->add_option("--data", push_.data,
                   "A file of external data, under the name the model refers to; else FILE.data")
      ->allow_extra_args(false);
}

// Flags that are fields of the spec.
void CommandLine::AddSpecFields(CLI::App* submit) {
  const auto text = [&](const char* flag, const char* pointer, const char* help) {
    submit->add_option_function<std::string>(
        flag, [this, pointer](const std::string& v) { submit_.fields.emplace_back(pointer, v); },
        help);
  };
  const auto integer = [&](const char* flag, const char* pointer, const char* help) {
    submit->add_option_function<int64_t>(
        flag, [this, pointer](const int64_t& v) { submit_.fields.emplace_back(pointer, v); }, help);
  };
  const auto number = [&](const char* flag, const char* pointer, const char* help) {
    submit->add_option_function<double>(
        flag, [this, pointer](const double& v) { submit_.fields.emplace_back(pointer, v); }, help);
  };
  text("-d,--dataset", "/evaluate/dataset", "Measure the results on this dataset");
  text("-c,--calibration", "/calibration/dataset", "Data that passes look at");
  integer("--calibration-samples", "/calibration/samples", "The first so many of it; 0: all");
  integer("--samples", "/evaluate/samples", "The first so many of the dataset; 0: all");
  integer("--runs", "/evaluate/runs", "Timed runs of each result; 0: no latency");
  integer("--threads", "/evaluate/threads", "Threads of a timed run");
  number("--min-sqnr-db", "/evaluate/min_sqnr_db", "Below it a chain has collapsed");
  number("--min-agreement", "/evaluate/min_agreement", "Below it a chain has collapsed");
  text("-e,--experiment", "/experiment", "The series of runs that these belong to");
  text("--artifact", "/artifact", "How the models are kept: onnx, packed or tflite");
  integer("--priority", "/priority", "-100 to 100; the greatest waits least");
  integer("--seed", "/seed", "Of everything random in the job");
  integer("--memory-mb", "/limits/memory_mb", "The job fails beyond it");
  integer("--time-s", "/limits/time_s", "The job fails beyond it");
}

void CommandLine::AddJobs() {
  CLI::App* ls = Add("ls", "List jobs (the newest first), models, datasets or experiments",
                     [this](const Context& c) { return List(c, list_); });
  ls->add_option("what", list_.what, "jobs, models, datasets or experiments")
      ->check(CLI::IsMember({"jobs", "models", "datasets", "experiments"}));
  ls->add_option("--state", list_.state, "Only jobs in this state");
  ls->add_option("-n,--limit", list_.limit, "At most so many jobs")->check(CLI::Range(1, 1000));

  Add("job", "Show a job and its runs", [this](const Context& c) { return ShowJob(c, id_); })
      ->add_option("job", id_, "The job's id")
      ->required();
  Add("watch", "Follow a job to its end; exits 10 where it failed, 11 where it was cancelled",
      [this](const Context& c) { return Watch(c, id_); })
      ->add_option("job", id_, "The job's id")
      ->required();
  Add("log", "Write a job's log", [this](const Context& c) { return Log(c, id_); })
      ->add_option("job", id_, "The job's id")
      ->required();
  Add("cancel", "Cancel jobs", [this](const Context& c) { return Cancel(c, ids_); })
      ->add_option("jobs", ids_, "Their ids")
      ->required();
  Add("passes", "List the passes, or the options of one", [this](const Context& c) {
    return ListPasses(c, text_);
  })->add_option("pass", text_, "Its name");
}

void CommandLine::AddBatch() {
  CLI::App* batch = Add("batch", "Optimize a zoo and report; exits 13 where it got worse",
                        [this](const Context& c) { return Batch(c, batch_); });
  CLI::Option* spec = batch->add_option(
      "spec", batch_.spec_file, "The batch as JSON (docs/batches.md); - reads standard input");
  CLI::Option* id =
      batch->add_option("--id", batch_.batch, "Wait for a batch that was begun before");
  id->excludes(spec);
  batch->add_flag("--dry", batch_.is_dry, "Decide, and submit nothing");
  batch->add_flag("--force", batch_.has_force, "Run what has not changed, too");
  batch->add_flag("--no-wait", batch_.has_no_wait, "Do not wait for its end");
}

void CommandLine::AddQueries() {
  CLI::App* history = Add("history", "List runs by a filter, in any order, with any columns",
                          [this](const Context& c) { return History(c, history_); });
  history->add_option("filter", history_.filter,
                      "Such as: model = \"yolov8n\" and top1_drop < 0.01 and size_ratio <= 0.3");
  history->add_option("-s,--sort", history_.sort, "Fields with commas between; - for descending")
      ->capture_default_str();
  history->add_option(
      "--columns", history_.columns,
      "Fields with commas between: id, chain, top1, passes.quantize_int8.mode, ...");
  history->add_option("-n,--limit", history_.limit, "At most so many")
      ->check(CLI::Range(1, 100'000'000));
  history->add_option("-f,--format", history_.format, "table, csv or jsonl")
      ->check(CLI::IsMember({"table", "csv", "jsonl"}));
  history->add_flag("--count", history_.has_count, "Say how many match");

  CLI::App* pareto = Add("pareto", "The runs that no other beats, as a table and a plot",
                         [this](const Context& c) { return Pareto(c, pareto_); });
  pareto->add_option("filter", pareto_.filter, "Only runs that it matches");
  pareto->add_option("-o,--objectives", pareto_.objectives,
                     "FIELD:min or FIELD:max, with commas; else what the job's search looks for, "
                     "or size_bytes:min,top1:max");
  pareto->add_flag("!--no-plot", pareto_.has_plot, "Only the table");
  pareto->add_flag("!--front-only", pareto_.has_dominated, "Leave out the runs that others beat");

  const auto add_scope = [](CLI::App* sub, auto& options) {
    sub->add_option("-e,--experiment", options.experiment, "Only runs of this experiment");
    sub->add_option("-m,--model", options.model, "Only runs that started from this model");
    sub->add_option("--chain", options.chain, "Only runs of chains with this name");
    sub->add_option("--job", options.job, "Only runs of this job");
  };
  add_scope(history, history_);
  add_scope(pareto, pareto_);
}

void CommandLine::AddRuns() {
  CLI::App* show = Add("show", "Show a run: where it came from, what each pass did, its metrics",
                       [this](const Context& c) { return Show(c, id_, flag_); });
  show->add_option("run", id_, "The run's id")->required();
  show->add_flag("--reports", flag_, "All that the passes reported");

  CLI::App* compare = Add("compare", "What differs between runs",
                          [this](const Context& c) { return Compare(c, compare_); });
  compare->add_option("runs", compare_.runs, "2 to 16 ids")->required()->expected(2, 16);
  compare->add_flag("--whole", compare_.is_whole, "All differences, however many");

  CLI::App* pull = Add("pull", "Fetch the model of a run, with external data, digest checked",
                       [this](const Context& c) { return Pull(c, pull_); });
  pull->add_option("run", pull_.run, "The run's id")->required();
  pull->add_option("-o,--out", pull_.out, "A file or a folder; else here, under its own name");
  pull->add_option("--form", pull_.form, "onnx, or tflite where the job asked for that form")
      ->check(CLI::IsMember({"onnx", "tflite"}));

  Add("rerun",
      "Do a run again and compare: exits 12 where the model is not the same, byte for byte",
      [this](const Context& c) { return Rerun(c, id_); })
      ->add_option("run", id_, "The run's id")
      ->required();

  CLI::App* to = Add("export", "Put runs on an MLflow tracking server",
                     [this](const Context& c) { return ExportToMlflow(c, export_); });
  to->add_option("kind", text_, "mlflow")->required()->check(CLI::IsMember({"mlflow"}));
  to->add_option("filter", export_.filter, "Only runs that it matches");
  to->add_option("--to", export_.url, "The server's address (MLFLOW_TRACKING_URI)")
      ->required()
      ->envname("MLFLOW_TRACKING_URI");
  to->add_option("--as", export_.experiment, "The experiment there; made where it is missing")
      ->required();
  to->add_option("-e,--experiment", export_.only_experiment, "Only runs of this experiment");
  to->add_option("-m,--model", export_.model, "Only runs that started from this model");
  to->add_option("-n,--limit", export_.limit, "At most so many, the newest")
      ->check(CLI::Range(1, 1'000'000));

  CLI::App* tag = Add("tag", "Set tags of a run: NAME=VALUE; NAME= removes one",
                      [this](const Context& c) { return Tag(c, id_, words_); });
  tag->add_option("run", id_, "The run's id")->required();
  tag->add_option("tags", words_, "NAME=VALUE")->required();
  CLI::App* note = Add("note", "Set the note of a run",
                       [this](const Context& c) { return Note(c, id_, text_); });
  note->add_option("run", id_, "The run's id")->required();
  note->add_option("text", text_, "The note; an empty one removes it")->required();
  CLI::App* rm = Add("rm", "Delete runs, all runs of an experiment, or a model's name",
                     [this](const Context& c) { return Remove(c, remove_); });
  auto* runs = rm->add_option("runs", remove_.runs, "Their ids");
  auto* all = rm->add_option("-e,--experiment", remove_.experiment, "All runs of this experiment");
  all->excludes(runs);
  rm->add_option("-m,--model", remove_.model, "This model's name; its runs stay")
      ->excludes(runs)
      ->excludes(all);
}

CommandWords WordsOf(const CLI::App& app) {
  const auto options_of = [](const CLI::App& a, std::vector<std::string> names) {
    for (const CLI::Option* option : a.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    return names;
  };
  CommandWords words;
  const std::vector<std::string> globals = options_of(app, {});
  words[""] = globals;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) words[sub->get_name()] = options_of(*sub, globals);
  }
  return words;
}

void CommandLine::AddCompletion() {
  Add("completion", "Write the completion script: source <(pare completion bash)",
      [](const Context& c) {
        c.terminal.out << BashCompletion();
        return static_cast<int>(kExitDone);
      })
      ->add_option("shell", text_, "bash")
      ->required()
      ->check(CLI::IsMember({"bash"}));
  CLI::App* complete = Add("complete", "", [this](const Context& c) {
    CommandWords words = WordsOf(app);
    words[""].push_back("--help");
    for (const std::string& word : Complete(c.daemon, words, words_))
      c.terminal.out << word << "\n";
    return static_cast<int>(kExitDone);
  });
  complete->add_option("words", words_, "The words so far");
  complete->group("");  // for the script, not for people
}

// A line about the first word that is no command or option.
std::string DidYouMean(const CommandWords& words, const std::vector<std::string>& arguments) {
  std::string command;
  for (const std::string& argument : arguments) {
    const bool is_option = argument.starts_with("--");
    if (argument.starts_with('-') && !is_option) continue;
    std::vector<std::string> known;
    if (is_option) {
      known = words.at(command);
    } else if (command.empty()) {
      for (const auto& [name, unused] : words) known.push_back(name);
    }
    const std::string word = argument.substr(0, argument.find('='));
    const bool is_known = std::ranges::find(known, word) != known.end();
    if (is_known && !is_option) command = word;
    if (is_known || known.empty()) continue;
    const std::string nearest = NearestName(word, known);
    if (!nearest.empty()) return "did you mean \"" + nearest + "\"?\n";
  }
  return "";
}

std::string ReadToken(const Globals& globals) {
  if (globals.token_file.empty()) {
    const char* token = std::getenv("PARED_TOKEN");
    return token == nullptr ? "" : token;
  }
  std::ifstream file(globals.token_file);
  std::string token;
  if (!(file >> token)) {
    throw Error(ErrorCode::kNotFound, "holds no token", globals.token_file);
  }
  return token;
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& arguments, Terminal terminal) {
  CommandLine line;
  try {
    // CLI11 takes the arguments from the back.
    line.app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    if (line.app.exit(error, terminal.out, terminal.err) == 0) return kExitDone;  // --help
    terminal.err << DidYouMean(WordsOf(line.app), arguments);
    return kExitRefused;
  }
  Access access = line.globals.access;
  access.token = ReadToken(line.globals);
  const Daemon daemon(access);
  if (line.globals.colour != "auto") terminal.has_colour = line.globals.colour == "always";
  return line.command({daemon, terminal, line.globals.is_json});
}

int Fail(const std::vector<std::string>& arguments, const Terminal& terminal, const Error& error) {
  const int code = ExitCodeOf(error);
  if (std::ranges::find(arguments, "--json") == arguments.end()) {
    terminal.err << "pare: " << Printable(error.what()) << "\n";
  } else {
    terminal.err
        << DumpJson(
               {{"error",
                 {{"message", error.message()}, {"where", error.where()}, {"exit_code", code}}}})
        << "\n";
  }
  return code;
}

}  // namespace pared
