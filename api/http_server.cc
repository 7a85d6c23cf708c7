// Listens, accepts, stops. What a connection does is in http_session.cc.

#include "api/http_server.h"

#include <exception>
#include <memory>
#include <utility>

#include "api/http_impl.h"
#include "base/error.h"

namespace pared {
namespace {

constexpr auto kDrainTime = std::chrono::seconds(5);

}  // namespace

void HttpServer::Impl::MakeIncoming() const {
  std::error_code error;
  fs::remove_all(incoming, error);  // what was on its way when the daemon died
  if (!error) fs::create_directories(incoming, error);
  if (error) throw Error(ErrorCode::kInternal, "cannot create: " + error.message(), incoming);
}

void HttpServer::Impl::Listen() {
  error_code error;
  const asio::ip::address address = asio::ip::make_address(settings->address, error);
  if (error) {
    throw Error(ErrorCode::kInvalidArgument,
                "must be an IP address such as 127.0.0.1, is \"" + settings->address + "\"",
                "/address");
  }
  is_loopback = address.is_loopback();
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(settings->port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw Error(ErrorCode::kUnavailable, "cannot listen on " + settings->address + ":" +
                                             std::to_string(settings->port) + ": " +
                                             error.message());
  }
  port = acceptor.local_endpoint().port();
  asio::co_spawn(io, Accept(), asio::detached);
  thread = std::jthread([this] { io.run(); });
}

asio::awaitable<void> HttpServer::Impl::Accept() {
  asio::steady_timer pause(io);
  while (!is_stopping) {
    auto [error, socket] = co_await acceptor.async_accept(kAwait);
    if (is_stopping) break;
    if (error) {  // out of descriptors, most likely: some will be closed soon
      pause.expires_after(kPollInterval);
      co_await pause.async_wait(kAwait);
      continue;
    }
    if (connections.size() >= static_cast<size_t>(settings->connections_max)) continue;
    socket.set_option(tcp::no_delay(true), error);
    auto connection = std::make_shared<Connection>(std::move(socket));
    connections.insert(connection.get());
    asio::co_spawn(io, Serve(*connection),
                   [this, connection](std::exception_ptr) { Remove(connection.get()); });
  }
}

void HttpServer::Impl::Remove(Connection* connection) {
  connections.erase(connection);
  if (is_stopping && connections.empty()) drain.cancel();
}

void HttpServer::Impl::Stop() {
  if (!thread.joinable()) return;
  asio::post(io, [this] { Drain(); });
  thread.join();  // the last connection's end leaves the I/O thread without work
  handlers.join();
  streams.join();
  uploads.join();
}

void HttpServer::Impl::Drain() {
  error_code ignored;
  is_stopping = true;
  acceptor.close(ignored);
  for (Connection* connection : connections) {
    if (connection->is_idle) connection->stream.socket().close(ignored);
  }
  if (connections.empty()) return;
  drain.expires_after(kDrainTime);
  drain.async_wait([this](error_code error) {
    if (error) return;  // all have ended in time
    error_code close_error;
    for (Connection* connection : connections) connection->stream.socket().close(close_error);
  });
}

void CheckCertificate(const Settings& settings) { MakeTlsContext(settings); }

// Pointers that own nothing: both outlive the server.
HttpServer::HttpServer(const Settings& settings, const Router& router, fs::path incoming)
    : HttpServer({std::shared_ptr<void>(), &settings}, {std::shared_ptr<void>(), &router},
                 std::move(incoming)) {}

HttpServer::HttpServer(std::shared_ptr<const Settings> settings,
                       std::shared_ptr<const Router> router, fs::path incoming)
    : impl_(std::make_unique<Impl>(std::move(settings), std::move(router), std::move(incoming))) {
  impl_->tls = MakeTlsContext(*impl_->settings);
  impl_->MakeIncoming();
  impl_->Listen();
}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Replace(std::shared_ptr<const Settings> settings,
                         std::shared_ptr<const Router> router) {
  std::shared_ptr<asio::ssl::context> tls = MakeTlsContext(*settings);
  asio::post(impl_->io, [this, settings = std::move(settings), router = std::move(router),
                         tls = std::move(tls)]() mutable {
    impl_->settings = std::move(settings);
    impl_->router = std::move(router);
    impl_->tls = std::move(tls);
  });
}

uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::Stop() { impl_->Stop(); }

}  // namespace pared
