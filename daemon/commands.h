// The commands of the program, most of which work on a model file without a daemon.

#pragma once

#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "config/fields.h"
#include "evaluator/dataset.h"
#include "model/graph.h"

namespace pared {

// The dataset in `folder`; random values for `inputs` where it is "".
Dataset OpenDataset(const std::string& folder, const std::vector<ValueInfo>& inputs);

// `pared bench MODEL`: where the time goes, layer by layer. Writes a table, or JSON.
void RunBench(const std::vector<std::string>& arguments, std::ostream& out);

// `pared evaluate MODEL`: runs a dataset through the model, writes its metrics as JSON and, where
// asked, the first output of every sample as a NumPy file.
void RunEvaluate(const std::vector<std::string>& arguments, std::ostream& out);

// `pared optimize MODEL`: a chain of passes over a model file. Writes the result and, as JSON, what
// the passes reported. Throws what the chain failed with.
void RunOptimize(const std::vector<std::string>& arguments, std::ostream& out);

// `pared pack MODEL --out=FILE` and `pared unpack MODEL --out=FOLDER` (storage/packed.h).
void RunPack(const std::vector<std::string>& arguments, std::ostream& out);
void RunUnpack(const std::vector<std::string>& arguments, std::ostream& out);

// `pared --describe-passes`: docs/passes.md.
void DescribePasses(std::ostream& out);

// Their flags, as DescribeFields has them.
Json BenchFlags();
Json EvaluateFlags();
Json OptimizeFlags();
Json PackFlags();
Json UnpackFlags();

struct Command {
  const char* name;
  const char* usage;    // what follows the name
  const char* summary;  // what it does, without a full stop
  void (*run)(const std::vector<std::string>& arguments, std::ostream& out);
  std::string (*flags)();  // what --help says of them
};

// The commands that people type, "serve" among them; those that the daemon starts are not here.
std::span<const Command> Commands();

}  // namespace pared
