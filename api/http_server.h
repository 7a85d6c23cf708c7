// HTTP/1.1 on one I/O thread; handlers run on a few threads of their own.

#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "api/router.h"
#include "config/settings.h"

namespace pared {

class HttpServer {
 public:
  // Listens on settings.address and settings.port, and answers from then on. Uploads are written
  // into folders below `incoming`, which is made empty. Settings and router must outlive the
  // server. Throws kUnavailable: the port is in use; kInvalidArgument: no such address.
  HttpServer(const Settings& settings, const Router& router, std::filesystem::path incoming);
  ~HttpServer();  // Stop()

  uint16_t port() const;  // the one that was bound

  // Takes no more requests, lets those that are being answered end for a few seconds, then closes
  // all. Idempotent.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pared
