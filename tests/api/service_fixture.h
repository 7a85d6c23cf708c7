// A whole service in a temporary folder, without sockets and without anyone who runs its jobs.

#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "api/routes.h"
#include "model/onnx.h"
#include "model/text.h"
#include "tests/testing/temp_dir.h"

namespace pared {

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    settings_.data_dir = folder_.path().string();
    settings_.port = 0;
    settings_.model_roots = {(folder_ / "roots").string()};
    std::filesystem::create_directories(folder_ / "roots");
    std::filesystem::create_directories(settings_.Datasets() / "digits");
    WriteFile(settings_.Datasets() / "digits" / "dataset.json", "{}");
    store_.PutModel("m", std::string(64, 'a'), 1);
  }

  Response Ask(Verb verb, const std::string& path, const std::string& query = "") {
    Request request;
    request.verb = verb;
    request.path = path;
    request.query_text = query;
    return router_.Answer(request);
  }

  Response Post(const Json& spec, const Headers& headers = {}) {
    Request request;
    request.verb = Verb::kPost;
    request.path = "/v1/jobs";
    request.headers = headers;
    request.body = spec.dump();
    return router_.Answer(request);
  }

  static Json Spec() {
    return ParseJson(R"({"model": "m", "chains": [{"name": "c", "passes": [
      {"pass": "magnitude_prune", "sparsity": 0.8}]}]})");
  }

  static std::string ModelBytes() {
    return SerializeOnnx(
        ParseText("<ir_version: 8, opset_import: [\"\" : 17]> "
                  "g (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"));
  }

  TempDir folder_;
  Settings settings_;
  Store store_{folder_ / "pared.db", {.queued_max = 3}};
  Artifacts artifacts_{folder_ / "artifacts"};
  Service service_{store_, artifacts_, settings_};
  Router router_{MakeRoutes(service_)};
};

}  // namespace pared
