// A connection: read a request, have it answered, again.

#include <exception>
#include <fstream>
#include <utility>
#include <vector>

#include "api/auth.h"
#include "api/http_impl.h"
#include "base/error.h"
#include "base/log.h"

namespace pared {
namespace {

constexpr uint32_t kHeaderBytesMax = 16 << 10;

int64_t NowMs() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

std::optional<Verb> VerbOf(http::verb verb) {
  switch (verb) {
    case http::verb::get:
    case http::verb::head:
      return Verb::kGet;
    case http::verb::post:
      return Verb::kPost;
    case http::verb::put:
      return Verb::kPut;
    case http::verb::patch:
      return Verb::kPatch;
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
std::optional<Response> RefuseForeign(const Headers& headers, bool is_loopback, bool is_tls) {
  const auto host = headers.find("host");
  if (host == headers.end()) return std::nullopt;  // no browser: they all send it
  const std::string name = HostOf(host->second);
  if (is_loopback && name != "localhost" && name != "127.0.0.1" && name != "[::1]") {
    return Problem(403, "forbidden", "a loopback address is not \"" + name + "\"");
  }
  const auto origin = headers.find("origin");
  if (origin == headers.end()) return std::nullopt;
  // With https a proxy before a daemon without TLS may have passed it on.
  if (origin->second == "https://" + host->second) return std::nullopt;
  if (!is_tls && origin->second == "http://" + host->second) return std::nullopt;
  return Problem(403, "forbidden", "requests of other sites are not served");
}

}  // namespace

// The connection boundary: a fault of the server in between requests ends this connection alone.
asio::awaitable<void> HttpServer::Impl::Serve(Connection& connection) {
  try {
    bool is_open = co_await Handshake(connection);
    while (is_open && !is_stopping) is_open = co_await ServeOne(connection);
    co_await EndTls(connection);
  } catch (const std::exception& error) {
    LogEvent(LogLevel::kError, "connection_failed", {{"error", error.what()}});
  }
  error_code ignored;
  connection.stream.socket().shutdown(tcp::socket::shutdown_both, ignored);
}

// TLS where the server has it. False: the connection ends here.
asio::awaitable<bool> HttpServer::Impl::Handshake(Connection& connection) {
  if (!tls) co_return true;
  connection.stream.StartTls(tls);
  connection.is_idle = true;
  connection.stream.expires_after(idle_time());
  auto [error] =
      co_await connection.stream.tls().async_handshake(asio::ssl::stream_base::server, kAwait);
  if (!error) co_return true;
  connection.stream.EndTls();
  const bool is_plain =
      error == error_code(static_cast<int>(ERR_PACK(ERR_LIB_SSL, 0, SSL_R_HTTP_REQUEST)),
                          asio::error::get_ssl_category());
  if (is_plain) {
    Exchange exchange;
    co_return co_await Refuse(connection, exchange,
                              Problem(400, "bad request", "this port speaks TLS: ask https://"));
  }
  LogEvent(LogLevel::kDebug, "tls_handshake_failed", {{"error", error.message()}});
  co_return false;
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
  if (exchange.is_head) exchange.request.headers.erase("range");  // RFC 9110: of GET only
  const std::optional<Verb> verb = VerbOf(message.method());
  const std::string target(message.target());
  const size_t question = target.find('?');
  exchange.request.path = target.substr(0, question);
  if (question != std::string::npos) exchange.request.query_text = target.substr(question + 1);
  exchange.router = router;
  if (!verb || !target.starts_with('/')) {
    // QUERY is one that Beast does not know yet.
    const bool is_method =
        message.method() != http::verb::unknown || message.method_string() == "QUERY";
    const bool is_known = is_method && target.starts_with('/');
    const Response response = is_known
                                  ? router->NoRoute(exchange.request)
                                  : Problem(501, "not implemented", "no such method is served");
    co_return co_await Refuse(connection, exchange, response);
  }
  exchange.request.verb = *verb;
  exchange.route = exchange.router->Match(exchange.request);

  std::optional<Response> refusal =
      RefuseForeign(exchange.request.headers, is_loopback, connection.stream.is_tls());
  if (!refusal) refusal = RefuseStranger(*settings, exchange.request, NowMs());
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
      static_cast<uint64_t>(is_upload ? settings->model_bytes_max : settings->body_bytes_max);
  const auto length = head.content_length();
  if (length && *length > limit) co_return AnswerTo(http::error::body_limit);
  if (is_upload) {
    std::optional<Response> answer = PlaceUpload(exchange);
    if (answer) co_return answer;
  }
  head.body_limit(limit);
  if (beast::iequals(head.get()[http::field::expect], "100-continue")) {
    const bool is_sent = co_await Write(connection, "HTTP/1.1 100 Continue\r\n\r\n");
    if (!is_sent) co_return AnswerTo(http::error::bad_value);  // which will not arrive either
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

// Decides on the file of an upload. Not nothing: the answer, without the body.
std::optional<Response> HttpServer::Impl::PlaceUpload(Exchange& exchange) {
  if (!exchange.route->place) {
    exchange.folder.emplace(incoming);
    exchange.request.upload = exchange.folder->path() / "upload.onnx";
    return std::nullopt;
  }
  Response response = exchange.router->Place(*exchange.route, exchange.request);
  if (response.file.empty()) return response;
  exchange.request.upload = response.file;
  exchange.upload_lock = response.keeper;
  return std::nullopt;
}

// Appends the body to the upload's file. A generic error is the disk's, not the peer's.
asio::awaitable<error_code> HttpServer::Impl::ReadUpload(Connection& connection, Exchange& exchange,
                                                         HeadParser& head) {
  std::ofstream file(exchange.request.upload, std::ios::binary | std::ios::app);
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
  const bool is_upload = !exchange.request.upload.empty();
  asio::steady_timer pause(io);
  const auto start = std::chrono::steady_clock::now();
  while (true) {
    const auto handle = [&]() -> asio::awaitable<Response> {
      co_return exchange.router->Handle(exchange.route, exchange.request);
    };
    Response response =
        co_await asio::co_spawn(is_upload ? uploads : handlers, handle, asio::use_awaitable);
    if (!response.pending || is_stopping || HasGone(connection.stream)) {
      co_return response;
    }
    pause.expires_after(kPollInterval);
    co_await pause.async_wait(kAwait);
    const auto waited = std::chrono::steady_clock::now() - start;
    exchange.request.waited_ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(waited).count();
  }
}

}  // namespace pared
