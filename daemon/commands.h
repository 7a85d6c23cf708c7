// The subcommands that work on a model file without a daemon.

#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "evaluator/dataset.h"
#include "evaluator/executor.h"

namespace pared {

// The dataset in `folder`; random values for the executor's inputs where it is "".
Dataset OpenDataset(const std::string& folder, const Executor& executor);

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

// What --help says of the subcommands.
std::string CommandsHelp();
std::string BenchHelp();
std::string OptimizeHelp();
std::string PackHelp();

}  // namespace pared
