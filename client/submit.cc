// A job from a file or from flags.

#include <algorithm>
#include <fstream>
#include <iostream>
#include <sstream>

#include "client/commands.h"
#include "config/json_file.h"

namespace pared {
namespace {

[[noreturn]] void Refuse(const std::string& where, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, where);
}

std::string Trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n");
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\n") + 1 - begin));
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

// The type of a pass's option; empty where pared has no such option, which it will say better.
std::string TypeOf(const Json& passes, const std::string& pass, const std::string& option) {
  for (const Json& entry : passes) {
    if (entry.value("name", "") != pass) continue;
    for (const Json& field : entry.value("options", Json::array())) {
      if (field.value("name", "") == option) return field.value("type", "");
    }
  }
  return "";
}

Json ValueOf(const std::string& type, const std::string& option, const std::string& text) {
  if (type == "string" || type == "choice") return text;
  const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (type == "strings" && !value.is_array()) return Split(text, ',');
  if (!value.is_discarded()) return value;
  if (type.empty()) return text;
  Refuse(option, "must be " + std::string(type == "boolean" ? "true or false" : "a " + type) +
                     ", is \"" + text + "\"");
}

// "magnitude_prune sparsity=0.8 pattern=2x1", or the same as a JSON object.
Json PassOf(const std::string& text, const Json& passes) {
  if (text.starts_with('{')) return ParseJson(text);
  std::istringstream words(text);
  std::string name;
  words >> name;
  Json pass = {{"pass", name}};
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == word.npos || equals == 0) {
      Refuse(word, "an option of a pass is written option=value");
    }
    const std::string option = word.substr(0, equals);
    if (pass.contains(option)) Refuse(option, "is given twice");
    pass[option] = ValueOf(TypeOf(passes, name, option), option, word.substr(equals + 1));
  }
  return pass;
}

// "prune-int8: magnitude_prune sparsity=0.8 | quantize_int8"
Json ChainOf(const std::string& text, const Json& passes) {
  const size_t colon = text.find(':');
  if (colon == text.npos || text.find_first_of(" |={") < colon) {
    Refuse(text, "a chain is written \"NAME: PASS option=value ... | PASS ...\"");
  }
  Json chain = {{"name", Trimmed(text.substr(0, colon))}, {"passes", Json::array()}};
  for (const std::string& part : Split(text.substr(colon + 1), '|')) {
    if (Trimmed(part).empty()) Refuse(text, "a pass is missing before or after '|'");
    chain["passes"].push_back(PassOf(Trimmed(part), passes));
  }
  if (chain["passes"].empty()) Refuse(text, "this chain has no pass");
  return chain;
}

Json ChainOfPasses(const std::vector<std::string>& texts, const Json& passes) {
  Json chain = {{"passes", Json::array()}};
  std::string name;
  for (const std::string& text : texts) {
    chain["passes"].push_back(PassOf(Trimmed(text), passes));
    name += (name.empty() ? "" : "-") + chain["passes"].back().value("pass", "");
  }
  chain["name"] = name;
  return chain;
}

}  // namespace

Json ReadSpec(const std::string& file) {
  std::ostringstream text;
  if (file == "-") {
    text << std::cin.rdbuf();
  } else {
    std::ifstream stream(file, std::ios::binary);
    if (!stream) throw Error(ErrorCode::kNotFound, "cannot read the spec", file);
    text << stream.rdbuf();
  }
  Json spec = ParseJsonOf(file, text.str());
  if (!spec.is_object()) Refuse(file, "a spec is a JSON object (docs/job_spec.md)");
  return spec;
}

Json MakeSpec(const SubmitOptions& options, const Json& passes) {
  Json spec = options.spec_file.empty() ? Json::object() : ReadSpec(options.spec_file);
  Json chains = Json::array();
  for (const std::string& chain : options.chains) chains.push_back(ChainOf(chain, passes));
  if (!options.passes.empty()) chains.push_back(ChainOfPasses(options.passes, passes));
  if (!chains.empty()) spec["chains"] = std::move(chains);
  if (!options.model.empty()) spec["model"] = options.model;
  for (const auto& [pointer, value] : options.fields) spec[Json::json_pointer(pointer)] = value;
  for (const char* needed : {"model", "chains"}) {
    if (spec.contains(needed)) continue;
    Refuse(std::string("/") + needed,
           "is missing: give a spec file, or --model and --pass or --chain");
  }
  return spec;
}

int Submit(const Context& context, const SubmitOptions& options) {
  SubmitOptions resolved = options;
  const bool is_file = (options.model.ends_with(".onnx") || options.model.ends_with(".tflite"));
  if (is_file && !options.is_dry) {
    const Json record = RegisterFile(context, {options.model, options.as, {}});
    resolved.model = record.at("name").get<std::string>();
  } else if (is_file) {
    resolved.model = options.as.empty() ? NameOfFile(options.model) : options.as;
  }
  const bool has_flags = !options.chains.empty() || !options.passes.empty();
  const Json passes = has_flags ? context.daemon.Get("/v1/passes").at("passes") : Json::array();
  const Json spec = MakeSpec(resolved, passes);
  if (options.is_dry) {
    context.terminal.out << spec.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
    return kExitDone;
  }
  HttpRequest request = {.method = "POST", .target = "/v1/jobs", .body = DumpJson(spec)};
  request.headers["content-type"] = "application/json";
  if (!options.key.empty()) request.headers["idempotency-key"] = options.key;
  const Json job = ParseJson(context.daemon.Exchange(std::move(request)).body);
  const int64_t id = job.at("id").get<int64_t>();
  if (context.is_json) {
    context.terminal.out << DumpJson(job) << "\n";
  } else {
    context.terminal.out << "job " << id << " " << job.at("state").get<std::string>() << "\n";
  }
  if (options.has_watch) return Watch(context, id);
  if (!context.is_json) context.terminal.out << "follow it with: pare watch " << id << "\n";
  return kExitDone;
}

}  // namespace pared
