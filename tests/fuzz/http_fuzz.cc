#include <filesystem>
#include <string>

#include "api/http_server.h"
#include "api/routes.h"
#include "base/check.h"
#include "model/onnx.h"
#include "model/text.h"
#include "tests/fuzz/targets.h"
#include "tests/testing/http_client.h"
#include "tests/testing/temp_dir.h"

namespace pared {
namespace {

// A daemon without anyone who runs its jobs, as api tests have it.
struct Daemon {
  Daemon() {
    settings.data_dir = folder.path().string();
    settings.port = 0;
    settings.wait_s_max = 0;  // of jobs that nobody runs
    settings.body_bytes_max = 64 << 10;
    settings.model_bytes_max = 64 << 10;
    std::filesystem::create_directories(settings.Datasets() / "digits");
    WriteFile(settings.Datasets() / "digits" / "dataset.json", "{}");
    store.PutModel("m", std::string(64, 'a'), 1);
    server.emplace(settings, router, folder / "incoming");
  }

  TempDir folder;
  Settings settings;
  Store store{folder / "pared.db", {.queued_max = 3}};
  Artifacts artifacts{folder / "artifacts"};
  Service service{store, artifacts, settings};
  Router router{MakeRoutes(service)};
  std::optional<HttpServer> server;
};

}  // namespace

void FuzzHttp(FuzzInput input) {
  static Daemon daemon;
  Client client(daemon.server->port());
  client.Send(std::string(TextOf(input)));
  client.EndSending();
  std::string answer;
  while (client.ReadMore(answer)) {
    if (answer.find("text/event-stream") != std::string::npos) break;  // it has no end
  }
  // 500 is what a foreign exception becomes: a bug of ours, whatever was sent.
  PARED_CHECK(answer.empty() || answer.starts_with("HTTP/1."));
  // Where an answer begins: a refusal may tell what was sent.
  PARED_CHECK(("\n" + answer).find("\nHTTP/1.1 500 ") == std::string::npos);
}

}  // namespace pared
