// HTTP/1.1 on one I/O thread; handlers run on a few threads of their own.

#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "api/router.h"
#include "config/settings.h"

namespace pared {

// Throws what the server would throw of its certificate.
void CheckCertificate(const Settings& settings);

class HttpServer {
 public:
  // Listens on settings.address and settings.port, and answers from then on. Uploads are written
  // into folders below `incoming`, which is made empty. Settings and router must outlive the
  // server. Throws kUnavailable: the port is in use; kInvalidArgument: no such address,
  // no such certificate.
  HttpServer(const Settings& settings, const Router& router, std::filesystem::path incoming);
  HttpServer(std::shared_ptr<const Settings> settings, std::shared_ptr<const Router> router,
             std::filesystem::path incoming);
  ~HttpServer();  // Stop()

  // Serves with these from the next request on, in place of those it was made with, and the next
  // connection gets the certificate that lies at its path now. What asks for another address or
  // port has no effect. Throws as MakeTlsContext (api/http_tls.h), and goes on as before.
  void Replace(std::shared_ptr<const Settings> settings, std::shared_ptr<const Router> router);

  uint16_t port() const;  // the one that was bound

  // Takes no more requests, lets those that are being answered end for a few seconds, then closes
  // all. Idempotent.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pared
