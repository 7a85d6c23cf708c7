// One coroutine a connection: read a request, have it answered, write the answer, again.
//
// The I/O thread only moves bytes. Handlers, which ask the database, run on two threads; uploads,
// which parse whole models, on a third, so that a long one keeps nobody waiting.
//
// co_await stands in no condition here: gcc 12 then lays out the coroutine's frame wrongly and its
// parameters are overwritten.

#include "api/http_server.h"

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
#include <exception>
#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "storage/artifacts.h"

namespace pared {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace fs = std::filesystem;
using tcp = asio::ip::tcp;
using boost::system::error_code;

constexpr uint32_t kHeaderBytesMax = 16 << 10;
constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kLingerBytesMax = size_t{4} << 20;
constexpr auto kPollInterval = std::chrono::milliseconds(200);
constexpr auto kDrainTime = std::chrono::seconds(5);
constexpr auto kLingerTime = std::chrono::seconds(2);

// Errors as values: a connection that breaks is an everyday event.
constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);

using HeadParser = http::request_parser<http::empty_body>;

struct Connection {
  explicit Connection(tcp::socket socket) : stream(std::move(socket)) {}
  beast::tcp_stream stream;
  beast::flat_buffer buffer;
  bool is_idle = true;  // between requests: may be closed at once
};

// One request on its way to its answer.
struct Exchange {
  Request request;
  const Route* route = nullptr;
  unsigned version = 11;
  bool is_head = false;
  bool keep_alive = false;
  std::optional<TemporaryFolder> folder;  // of an upload
};

std::optional<Verb> VerbOf(http::verb verb) {
  switch (verb) {
    case http::verb::get:
    case http::verb::head:
      return Verb::kGet;
    case http::verb::post:
      return Verb::kPost;
    case http::verb::put:
      return Verb::kPut;
    case http::verb::delete_:
      return Verb::kDelete;
    default:
      return std::nullopt;
  }
}

Headers HeadersOf(const http::fields& fields) {
  Headers headers;
  for (const auto& field : fields) {
    std::string name(field.name_string());
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    headers[name] = std::string(field.value());
  }
  return headers;
}

// What is answered to bytes that are no request. nullopt: nothing, the peer has gone.
std::optional<Response> AnswerTo(error_code error) {
  if (error == http::error::header_limit) {
    return Problem(431, "header too large",
                   "the header is longer than " + std::to_string(kHeaderBytesMax) + " bytes");
  }
  if (error == http::error::body_limit) {
    return Problem(413, "body too large", "the body is longer than this route takes");
  }
  const bool is_http = error.category() == make_error_code(http::error::bad_method).category();
  if (!is_http || error == http::error::end_of_stream || error == http::error::partial_message) {
    return std::nullopt;
  }
  return Problem(400, "bad request", "this is not HTTP/1.1: " + error.message());
}

std::string HostOf(std::string_view authority) {
  const size_t colon = authority.rfind(':');
  const bool has_port = colon != authority.npos && authority.find(']', colon) == authority.npos;
  return std::string(has_port ? authority.substr(0, colon) : authority);
}

// A page of another site, open in the browser of somebody who may reach this daemon, must not: it
// comes with an Origin of its own, or with a name of its own that it has made point here.
std::optional<Response> RefuseForeign(const Headers& headers, bool is_loopback) {
  const auto host = headers.find("host");
  if (host == headers.end()) return std::nullopt;  // no browser: they all send it
  const std::string name = HostOf(host->second);
  if (is_loopback && name != "localhost" && name != "127.0.0.1" && name != "[::1]") {
    return Problem(403, "forbidden", "a loopback address is not \"" + name + "\"");
  }
  const auto origin = headers.find("origin");
  if (origin == headers.end() || origin->second == "http://" + host->second) return std::nullopt;
  return Problem(403, "forbidden", "requests of other sites are not served");
}

bool HasGone(tcp::socket& socket) {
  char byte = 0;
  return recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

template <class Body>
void SetHeader(http::response<Body>& message, const Exchange& exchange, const Response& response) {
  message.version(exchange.version);
  message.result(static_cast<unsigned>(response.status));
  message.set(http::field::server, "pared/" PARED_VERSION);
  message.set("x-content-type-options", "nosniff");
  if (response.status != 304) message.set(http::field::content_type, response.type);
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.keep_alive(exchange.keep_alive);
}

}  // namespace

struct HttpServer::Impl {
  Impl(const Settings& the_settings, const Router& the_router, fs::path incoming_dir)
      : settings(the_settings), router(the_router), incoming(std::move(incoming_dir)) {}

  void MakeIncoming() const;
  void Listen();
  void Stop();
  void Drain();
  void Remove(Connection* connection);

  asio::awaitable<void> Accept();
  asio::awaitable<void> Serve(Connection& connection);
  asio::awaitable<bool> ServeOne(Connection& connection);
  asio::awaitable<bool> Refuse(Connection& connection, Exchange& exchange,
                               const Response& response);
  asio::awaitable<std::optional<Response>> ReadBody(Connection& connection, Exchange& exchange,
                                                    HeadParser& head);
  asio::awaitable<error_code> ReadUpload(Connection& connection, Exchange& exchange,
                                         HeadParser& head);
  asio::awaitable<Response> Answer(Connection& connection, Exchange& exchange);
  asio::awaitable<bool> Send(Connection& connection, const Exchange& exchange,
                             const Response& response);
  asio::awaitable<bool> SendFile(Connection& connection, const Exchange& exchange,
                                 const Response& response);
  asio::awaitable<void> Linger(Connection& connection);

  std::chrono::seconds idle_time() const { return std::chrono::seconds(settings.idle_s); }

  const Settings& settings;
  const Router& router;
  const fs::path incoming;
  bool is_loopback = true;
  uint16_t port = 0;

  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer drain{io};
  std::set<Connection*> connections;  // of the I/O thread alone
  bool is_stopping = false;           // of the I/O thread alone
  asio::thread_pool handlers{2};
  asio::thread_pool uploads{1};
  std::jthread thread;
};

void HttpServer::Impl::MakeIncoming() const {
  std::error_code error;
  fs::remove_all(incoming, error);  // what was on its way when the daemon died
  if (!error) fs::create_directories(incoming, error);
  if (error) throw Error(ErrorCode::kInternal, "cannot create: " + error.message(), incoming);
}

void HttpServer::Impl::Listen() {
  error_code error;
  const asio::ip::address address = asio::ip::make_address(settings.address, error);
  if (error) {
    throw Error(ErrorCode::kInvalidArgument,
                "must be an IP address such as 127.0.0.1, is \"" + settings.address + "\"",
                "/address");
  }
  is_loopback = address.is_loopback();
  const tcp::endpoint endpoint(address, static_cast<uint16_t>(settings.port));
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    throw Error(ErrorCode::kUnavailable, "cannot listen on " + settings.address + ":" +
                                             std::to_string(settings.port) + ": " +
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
    if (connections.size() >= static_cast<size_t>(settings.connections_max)) continue;
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

// The connection boundary: a fault of the server in between requests ends this connection alone.
asio::awaitable<void> HttpServer::Impl::Serve(Connection& connection) {
  try {
    bool is_open = true;
    while (is_open && !is_stopping) is_open = co_await ServeOne(connection);
  } catch (const std::exception& error) {
    LogEvent(LogLevel::kError, "connection_failed", {{"error", error.what()}});
  }
  error_code ignored;
  connection.stream.socket().shutdown(tcp::socket::shutdown_both, ignored);
}

// One request and its answer. False: the connection ends here.
asio::awaitable<bool> HttpServer::Impl::ServeOne(Connection& connection) {
  HeadParser head;
  head.header_limit(kHeaderBytesMax);
  head.body_limit(boost::none);  // the route's limit is not known yet
  connection.is_idle = true;
  connection.stream.expires_after(idle_time());
  auto [error, count] =
      co_await http::async_read_header(connection.stream, connection.buffer, head, kAwait);
  connection.is_idle = false;

  Exchange exchange;
  if (error) {
    const std::optional<Response> response = AnswerTo(error);
    if (!response) co_return false;
    co_return co_await Refuse(connection, exchange, *response);
  }
  const auto& message = head.get();
  exchange.version = message.version();
  exchange.is_head = message.method() == http::verb::head;
  exchange.keep_alive = message.keep_alive();
  exchange.request.headers = HeadersOf(message);
  const std::optional<Verb> verb = VerbOf(message.method());
  const std::string target(message.target());
  if (!verb || !target.starts_with('/')) {
    const Response response = Problem(501, "not implemented", "no such method is served");
    co_return co_await Refuse(connection, exchange, response);
  }
  const size_t question = target.find('?');
  exchange.request.verb = *verb;
  exchange.request.path = target.substr(0, question);
  if (question != std::string::npos) exchange.request.query_text = target.substr(question + 1);
  exchange.route = router.Match(exchange.request);

  std::optional<Response> refusal = RefuseForeign(exchange.request.headers, is_loopback);
  if (!refusal) refusal = co_await ReadBody(connection, exchange, head);
  if (refusal) co_return co_await Refuse(connection, exchange, *refusal);
  const Response response = co_await Answer(connection, exchange);
  if (is_stopping) exchange.keep_alive = false;
  const bool is_sent = co_await Send(connection, exchange, response);
  co_return is_sent&& exchange.keep_alive;
}

// Answers without having read the body, which ends the connection.
asio::awaitable<bool> HttpServer::Impl::Refuse(Connection& connection, Exchange& exchange,
                                               const Response& response) {
  exchange.keep_alive = false;
  const bool is_sent = co_await Send(connection, exchange, response);
  if (is_sent) co_await Linger(connection);
  co_return false;
}

// Nothing: the body is in exchange.request, whole. Else why it is not.
asio::awaitable<std::optional<Response>> HttpServer::Impl::ReadBody(Connection& connection,
                                                                    Exchange& exchange,
                                                                    HeadParser& head) {
  const bool is_upload = exchange.route != nullptr && exchange.route->body == Body::kUpload;
  const auto limit =
      static_cast<uint64_t>(is_upload ? settings.model_bytes_max : settings.body_bytes_max);
  const auto length = head.content_length();
  if (length && *length > limit) co_return AnswerTo(http::error::body_limit);
  head.body_limit(limit);
  if (beast::iequals(head.get()[http::field::expect], "100-continue")) {
    http::response<http::empty_body> go_on(http::status::continue_, exchange.version);
    connection.stream.expires_after(idle_time());
    auto [error, count] = co_await http::async_write(connection.stream, go_on, kAwait);
    if (error) co_return AnswerTo(http::error::bad_value);  // which will not arrive either
  }
  error_code error;
  if (is_upload) {
    error = co_await ReadUpload(connection, exchange, head);
  } else {
    http::request_parser<http::string_body> parser(std::move(head));
    connection.stream.expires_after(idle_time());
    auto [read_error, count] =
        co_await http::async_read(connection.stream, connection.buffer, parser, kAwait);
    error = read_error;
    exchange.request.body = std::move(parser.get().body());
  }
  if (!error) co_return std::nullopt;
  if (error.category() == boost::system::generic_category()) {
    co_return Problem(503, "unavailable", "the upload cannot be written: " + error.message());
  }
  co_return AnswerTo(error).value_or(
      Problem(408, "request timeout", "the body did not arrive in time"));
}

// Writes the body to a file in a folder of its own. A generic error is the disk's, not the peer's.
asio::awaitable<error_code> HttpServer::Impl::ReadUpload(Connection& connection, Exchange& exchange,
                                                         HeadParser& head) {
  exchange.folder.emplace(incoming);
  exchange.request.upload = exchange.folder->path() / "upload.onnx";
  std::ofstream file(exchange.request.upload, std::ios::binary);
  http::request_parser<http::buffer_body> parser(std::move(head));
  std::vector<char> chunk(kChunkBytes);
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    connection.stream.expires_after(idle_time());
    auto [error, count] =
        co_await http::async_read_some(connection.stream, connection.buffer, parser, kAwait);
    if (error && error != http::error::need_buffer) co_return error;
    const size_t filled = chunk.size() - parser.get().body().size;
    errno = 0;
    if (!file.write(chunk.data(), static_cast<std::streamsize>(filled))) break;
  }
  if (file) file.close();
  if (file) co_return error_code{};
  co_return error_code(errno != 0 ? errno : EIO, boost::system::generic_category());
}

// Runs the handler on a thread of its own, again and again while it has nothing to say yet.
asio::awaitable<Response> HttpServer::Impl::Answer(Connection& connection, Exchange& exchange) {
  const bool is_upload = exchange.folder.has_value();
  asio::steady_timer pause(io);
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    const auto handle = [&]() -> asio::awaitable<Response> {
      co_return router.Handle(exchange.route, exchange.request);
    };
    Response response =
        co_await asio::co_spawn(is_upload ? uploads : handlers, handle, asio::use_awaitable);
    if (!response.pending || is_stopping || HasGone(connection.stream.socket())) {
      co_return response;
    }
    pause.expires_after(kPollInterval);
    co_await pause.async_wait(kAwait);
    const auto waited = std::chrono::steady_clock::now() - start;
    exchange.request.waited_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(waited).count();
  }
}

asio::awaitable<bool> HttpServer::Impl::Send(Connection& connection, const Exchange& exchange,
                                             const Response& response) {
  if (!response.file.empty()) co_return co_await SendFile(connection, exchange, response);
  connection.stream.expires_after(idle_time());
  const bool has_body = !exchange.is_head && response.status != 304;
  if (has_body) {
    http::response<http::string_body> message;
    SetHeader(message, exchange, response);
    message.body() = response.body;
    message.prepare_payload();
    auto [error, count] = co_await http::async_write(connection.stream, message, kAwait);
    co_return !error;
  }
  http::response<http::empty_body> message;
  SetHeader(message, exchange, response);
  if (response.status != 304) message.content_length(response.body.size());
  auto [error, count] = co_await http::async_write(connection.stream, message, kAwait);
  co_return !error;
}

asio::awaitable<bool> HttpServer::Impl::SendFile(Connection& connection, const Exchange& exchange,
                                                 const Response& response) {
  std::ifstream file(response.file, std::ios::binary);
  const uintmax_t bytes = fs::file_size(response.file);
  http::response<http::empty_body> message;
  SetHeader(message, exchange, response);
  message.content_length(bytes);
  connection.stream.expires_after(idle_time());
  auto [head_error, head_count] = co_await http::async_write(connection.stream, message, kAwait);
  if (head_error || exchange.is_head) co_return !head_error;
  std::vector<char> chunk(kChunkBytes);
  for (uintmax_t sent = 0; sent < bytes;) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    const auto filled = static_cast<size_t>(file.gcount());
    if (filled == 0) co_return false;  // shorter than it was: the peer sees the length missed
    connection.stream.expires_after(idle_time());
    auto [error, count] =
        co_await asio::async_write(connection.stream, asio::buffer(chunk.data(), filled), kAwait);
    if (error) co_return false;
    sent += filled;
  }
  co_return true;
}

// Takes in some of what the peer still sends: closing on unread bytes would reset the connection
// and could cost the peer the answer.
asio::awaitable<void> HttpServer::Impl::Linger(Connection& connection) {
  error_code ignored;
  connection.stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  std::vector<char> chunk(kChunkBytes);
  connection.stream.expires_after(kLingerTime);
  for (size_t taken = 0; taken < kLingerBytesMax;) {
    auto [error, count] = co_await connection.stream.async_read_some(asio::buffer(chunk), kAwait);
    if (error) break;
    taken += count;
  }
}

void HttpServer::Impl::Stop() {
  if (!thread.joinable()) return;
  asio::post(io, [this] { Drain(); });
  thread.join();  // the last connection's end leaves the I/O thread without work
  handlers.join();
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

HttpServer::HttpServer(const Settings& settings, const Router& router, fs::path incoming)
    : impl_(std::make_unique<Impl>(settings, router, std::move(incoming))) {
  impl_->MakeIncoming();
  impl_->Listen();
}

HttpServer::~HttpServer() { Stop(); }

uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::Stop() { impl_->Stop(); }

}  // namespace pared
