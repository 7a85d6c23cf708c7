// The server's inside, shared by the three files that define it: http_server.cc (listen, accept,
// stop), http_session.cc (read a request, have it answered), http_send.cc (write the answer).
//
// One coroutine a connection. The I/O thread only moves bytes. Handlers, which ask the database,
// run on two threads; uploads, which parse whole models, on a third, and streams, each of which is
// asked five times a second, on a fourth, so that neither keeps a request waiting.
//
// co_await stands in no condition here: gcc 12 then lays out the coroutine's frame wrongly and its
// parameters are overwritten.

#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>

#include "api/http_server.h"
#include "api/http_tls.h"
#include "storage/artifacts.h"

namespace pared {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace fs = std::filesystem;
using tcp = asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr auto kPollInterval = std::chrono::milliseconds(200);

// Errors as values: a connection that breaks is an everyday event.
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

using HeadParser = http::request_parser<http::empty_body>;

struct Connection {
  explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}
  HttpStream stream;
  beast::flat_buffer buffer;
  bool is_idle = true;  // between requests: may be closed at once
};

// One request on its way to its answer.
struct Exchange {
  std::shared_ptr<const Router> router;  // of the time that the request came
  Request request;
  const Route* route = nullptr;
  unsigned version = 11;
  bool is_head = false;
  bool keep_alive = false;
  std::optional<TemporaryFolder> folder;    // of an upload that goes with its answer
  std::shared_ptr<const void> upload_lock;  // of one that stays
};

// Whether the peer has closed the connection. Under TLS its last words lie unread before the end.
inline bool HasGone(HttpStream& stream) {
  const int socket = stream.socket().native_handle();
  if (stream.is_tls()) {
    pollfd asked = {.fd = socket, .events = POLLRDHUP, .revents = 0};
    return poll(&asked, 1, 0) == 1;
  }
  char byte = 0;
  return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

struct HttpServer::Impl {
  Impl(std::shared_ptr<const Settings> the_settings, std::shared_ptr<const Router> the_router,
       fs::path incoming_dir)
      : settings(std::move(the_settings)),
        router(std::move(the_router)),
        incoming(std::move(incoming_dir)) {}

  void MakeIncoming() const;
  void Listen();
  void Stop();
  void Drain();
  void Remove(Connection* connection);

  asio::awaitable<void> Accept();
  asio::awaitable<void> Serve(Connection& connection);
  asio::awaitable<bool> Handshake(Connection& connection);
  asio::awaitable<bool> ServeOne(Connection& connection);
  asio::awaitable<bool> Refuse(Connection& connection, Exchange& exchange,
                               const Response& response);
  asio::awaitable<std::optional<Response>> ReadBody(Connection& connection, Exchange& exchange,
                                                    HeadParser& head);
  std::optional<Response> PlaceUpload(Exchange& exchange);
  asio::awaitable<error_code> ReadUpload(Connection& connection, Exchange& exchange,
                                         HeadParser& head);
  asio::awaitable<Response> Answer(Connection& connection, Exchange& exchange);
  asio::awaitable<bool> Write(Connection& connection, std::string_view bytes);
  asio::awaitable<bool> Send(Connection& connection, const Exchange& exchange,
                             const Response& response);
  asio::awaitable<bool> SendFile(Connection& connection, const Exchange& exchange,
                                 const Response& response);
  asio::awaitable<bool> SendStream(Connection& connection, const Exchange& exchange,
                                   const Response& response);
  asio::awaitable<void> Linger(Connection& connection);
  asio::awaitable<void> EndTls(Connection& connection);

  std::chrono::seconds idle_time() const { return std::chrono::seconds(settings->idle_s); }

  // Of the I/O thread alone, which may be given others.
  std::shared_ptr<const Settings> settings;
  std::shared_ptr<const Router> router;
  std::shared_ptr<asio::ssl::context> tls;  // null: none

  const fs::path incoming;
  bool is_loopback = true;
  uint16_t port = 0;

  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer drain{io};
  std::set<Connection*> connections;  // of the I/O thread alone
  bool is_stopping = false;           // of the I/O thread alone
  asio::thread_pool handlers{2};
  asio::thread_pool streams{1};
  asio::thread_pool uploads{1};
  std::jthread thread;
};

}  // namespace pared
