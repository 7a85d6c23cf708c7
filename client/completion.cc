// Completion for bash: the shell asks `pare complete`, which knows the commands, and the daemon
// knows the names.

#include "client/completion.h"

#include <algorithm>
#include <optional>

namespace pared {
namespace {

constexpr const char* kBash = R"bash(# source <(pare completion bash)
_pare() {
  local IFS=$'\n'
  COMPREPLY=($(pare complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
  return 0
}
complete -o default -F _pare pare
)bash";

// Names that the daemon has: {"models": [{"name": ...}, ...]} or {"datasets": ["...", ...]}.
std::vector<std::string> NamesOf(const Daemon& daemon, const std::string& what) {
  const std::optional<HttpReply> reply = daemon.TryExchange({.target = "/v1/" + what});
  std::vector<std::string> names;
  if (!reply) return names;
  const Json answer = ParseJson(reply->body);
  for (const Json& item : answer.value(what, Json::array())) {
    names.push_back(item.is_string() ? item.get<std::string>() : item.value("name", ""));
  }
  return names;
}

// What an option's or a command's value names; empty: nothing that the daemon lists.
std::string KindOf(const std::string& word) {
  if (word == "--model" || word == "-m") return "models";
  if (word == "--dataset" || word == "--calibration") return "datasets";
  if (word == "--experiment") return "experiments";
  if (word == "--pass" || word == "passes") return "passes";
  return "";
}

}  // namespace

std::string BashCompletion() { return kBash; }

std::vector<std::string> Complete(const Daemon& daemon, const CommandWords& words,
                                  const std::vector<std::string>& line) {
  const std::string prefix = line.empty() ? "" : line.back();
  const std::string before = line.size() < 2 ? "" : line[line.size() - 2];
  std::string command;
  for (size_t i = 0; i + 1 < line.size(); ++i) {
    if (command.empty() && words.contains(line[i])) command = line[i];
  }
  std::vector<std::string> candidates;
  if (const std::string kind = KindOf(before); !kind.empty()) {
    candidates = NamesOf(daemon, kind);
  } else if (command.empty() && !prefix.starts_with("-")) {
    for (const auto& [name, unused] : words) candidates.push_back(name);
  } else if (prefix.starts_with("-")) {
    candidates = words.at(command);
  } else if (command == "ls") {
    candidates = {"jobs", "models", "datasets", "experiments"};
  }
  std::erase_if(candidates, [&](const std::string& c) { return !c.starts_with(prefix); });
  std::ranges::sort(candidates);
  return candidates;
}

}  // namespace pared
