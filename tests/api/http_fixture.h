// A server on a port of its own.

#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "api/http_server.h"
#include "tests/api/service_fixture.h"
#include "tests/testing/http_client.h"

namespace pared {

class HttpServerTest : public ServiceTest {
 protected:
  HttpServerTest() {
    settings_.body_bytes_max = 1024;
    settings_.model_bytes_max = 4096;
    server_ = std::make_unique<HttpServer>(settings_, router_, folder_ / "incoming");
  }

  // The answer to one request on a connection of its own.
  std::string Ask(const std::string& request_line, const std::string& rest = "\r\n") {
    Client client(server_->port());
    client.Send(request_line + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + rest);
    return client.ReadToEnd();
  }

  static std::string Sized(const std::string& body) {
    return "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }

  std::unique_ptr<HttpServer> server_;
};

}  // namespace pared
