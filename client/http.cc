// The only file of the client that knows sockets. A connection serves one request: a command makes
// few, and none of them is worth the state that keeping it open would need.
//
// Coroutines on a loop of their own, for Beast's timeouts hold for asynchronous calls only.
// co_await stands in no condition here: gcc 12 then lays out the coroutine's frame wrongly.

#include "client/http.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <cerrno>
#include <exception>
#include <fstream>
#include <limits>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace pared {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
namespace ssl = boost::asio::ssl;
using tcp = asio::ip::tcp;
using boost::system::error_code;

constexpr auto kAwait = asio::as_tuple(asio::use_awaitable);
constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kBodyBytesMax = size_t{64} << 20;  // of a body that is held in memory

[[noreturn]] void ThrowUnreachable(const Url& url, const std::string& what) {
  throw Error(ErrorCode::kUnavailable, what, url.text());
}

void Check(const Url& url, const error_code& error, const char* doing) {
  if (!error) return;
  const std::string reason = error == beast::error::timeout ? "no answer in time" : error.message();
  ThrowUnreachable(url, std::string(doing) + ": " + reason);
}

struct Exchange {
  const Url& url;
  const HttpSettings& settings;
  const HttpRequest& request;
  const BodySink& sink;
  HttpReply reply = {};
};

// The request's head, with a body of `length` bytes.
std::string Head(const Exchange& exchange, uint64_t length) {
  const HttpRequest& request = exchange.request;
  http::request<http::empty_body> message;
  message.version(11);
  message.method_string(request.method);
  message.target(exchange.url.prefix + request.target);
  message.set(http::field::host, exchange.url.authority());
  message.set(http::field::user_agent, "pare/" PARED_VERSION);
  message.set(http::field::connection, "close");
  for (const auto& [name, value] : request.headers) message.set(name, value);
  if (length > 0 || request.method != "GET") message.content_length(length);
  std::ostringstream text;
  text << message.base();
  return text.str();
}

template <class Stream>
asio::awaitable<error_code> WriteBytes(Stream& stream, std::string_view bytes,
                                       std::chrono::seconds idle_time) {
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kChunkBytes);
    beast::get_lowest_layer(stream).expires_after(idle_time);
    auto [error, count] =
        co_await asio::async_write(stream, asio::buffer(piece.data(), piece.size()), kAwait);
    if (error) co_return error;
    bytes.remove_prefix(count);
  }
  co_return error_code{};
}

// Writes the request. A daemon that refuses a body may answer and close before it has read all: the
// error is kept back then, for the answer says more.
template <class Stream>
asio::awaitable<error_code> Write(Stream& stream, const Exchange& exchange) {
  const HttpRequest& request = exchange.request;
  const std::chrono::seconds idle_time = exchange.settings.idle_time;
  if (request.file.empty()) {
    const std::string text = Head(exchange, request.body.size()) + request.body;
    co_return co_await WriteBytes(stream, text, idle_time);
  }
  errno = 0;
  std::ifstream file(request.file, std::ios::binary | std::ios::ate);
  if (!file) {
    const std::string reason = error_code(errno, boost::system::generic_category()).message();
    throw Error(ErrorCode::kNotFound, "cannot read the file: " + reason, request.file.string());
  }
  auto left = static_cast<uint64_t>(file.tellg());
  file.seekg(0);
  const std::string head = Head(exchange, left);
  error_code error = co_await WriteBytes(stream, head, idle_time);
  std::vector<char> chunk(kChunkBytes);
  while (!error && left > 0) {
    file.read(chunk.data(), static_cast<std::streamsize>(std::min<uint64_t>(chunk.size(), left)));
    const auto filled = static_cast<size_t>(file.gcount());
    if (filled == 0) {
      throw Error(ErrorCode::kUnavailable, "became shorter while it was sent",
                  request.file.string());
    }
    error = co_await WriteBytes(stream, std::string_view(chunk.data(), filled), idle_time);
    left -= filled;
  }
  co_return error;
}

void TakeHead(const http::fields& fields, int status, HttpReply& reply) {
  reply.status = status;
  for (const auto& field : fields) {
    std::string name(field.name_string());
    for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    reply.headers[name] = std::string(field.value());
  }
}

template <class Stream>
asio::awaitable<error_code> Read(Stream& stream, Exchange& exchange) {
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  if (exchange.request.method == "HEAD") parser.skip(true);
  beast::get_lowest_layer(stream).expires_after(exchange.settings.idle_time);
  auto [head_error, head_count] = co_await http::async_read_header(stream, buffer, parser, kAwait);
  if (head_error) co_return head_error;
  TakeHead(parser.get(), static_cast<int>(parser.get().result_int()), exchange.reply);
  const bool has_sink = exchange.sink && exchange.reply.status / 100 == 2;
  std::vector<char> chunk(kChunkBytes);
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    beast::get_lowest_layer(stream).expires_after(exchange.settings.idle_time);
    auto [error, count] = co_await http::async_read_some(stream, buffer, parser, kAwait);
    if (error && error != http::error::need_buffer) co_return error_code{};  // it broke off
    const std::string_view piece(chunk.data(), chunk.size() - parser.get().body().size);
    if (!has_sink) {
      exchange.reply.body += piece;
      if (exchange.reply.body.size() > kBodyBytesMax) {
        ThrowUnreachable(exchange.url, "the answer is longer than 64 MiB");
      }
    } else if (!piece.empty() && !exchange.sink(exchange.reply, piece)) {
      co_return error_code{};
    }
  }
  exchange.reply.is_whole = true;
  co_return error_code{};
}

template <class Stream>
asio::awaitable<void> Converse(Stream& stream, Exchange& exchange) {
  const error_code write_error = co_await Write(stream, exchange);
  const error_code read_error = co_await Read(stream, exchange);
  if (read_error) {
    Check(exchange.url, write_error, "the connection broke while sending");
    Check(exchange.url, read_error, "the connection broke");
  }
}

asio::awaitable<void> Connect(beast::tcp_stream& stream, const Exchange& exchange) {
  tcp::resolver resolver(stream.get_executor());
  auto [resolve_error, endpoints] =
      co_await resolver.async_resolve(exchange.url.host, exchange.url.port, kAwait);
  Check(exchange.url, resolve_error, "cannot find the host");
  stream.expires_after(exchange.settings.connect_time);
  auto [error, endpoint] = co_await stream.async_connect(endpoints, kAwait);
  if (!error) co_return;
  const std::string reason = error == beast::error::timeout ? "no answer in time" : error.message();
  ThrowUnreachable(exchange.url, "cannot connect: " + reason +
                                     "; start the daemon with `pared serve`, or set PARED_URL to "
                                     "where it runs");
}

asio::awaitable<void> OverTcp(Exchange& exchange) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  co_await Connect(stream, exchange);
  co_await Converse(stream, exchange);
}

ssl::context TlsContext(const Exchange& exchange) {
  ssl::context context(ssl::context::tls_client);
  error_code error;
  context.set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                      ssl::context::no_tlsv1_1);
  if (exchange.settings.ca_file.empty()) {
    context.set_default_verify_paths(error);
  } else {
    context.load_verify_file(exchange.settings.ca_file, error);
  }
  if (error) {
    throw Error(ErrorCode::kInvalidArgument, "cannot read the certificates: " + error.message(),
                exchange.settings.ca_file);
  }
  context.set_verify_mode(ssl::verify_peer);
  context.set_verify_callback(ssl::host_name_verification(exchange.url.host));
  return context;
}

asio::awaitable<void> OverTls(Exchange& exchange) {
  ssl::context context = TlsContext(exchange);
  beast::ssl_stream<beast::tcp_stream> stream(co_await asio::this_coro::executor, context);
  // What the macro SSL_set_tlsext_host_name does, without its C cast.
  SSL_ctrl(stream.native_handle(), SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
           const_cast<char*>(exchange.url.host.c_str()));
  co_await Connect(beast::get_lowest_layer(stream), exchange);
  auto [error] = co_await stream.async_handshake(ssl::stream_base::client, kAwait);
  Check(exchange.url, error, "no TLS");
  co_await Converse(stream, exchange);
}

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

}  // namespace

std::string Url::authority() const {
  const std::string bracketed = host.find(':') == std::string::npos ? host : "[" + host + "]";
  const bool is_usual = port == (is_tls ? "443" : "80");
  return is_usual ? bracketed : bracketed + ":" + port;
}

std::string Url::text() const { return (is_tls ? "https://" : "http://") + authority() + prefix; }

Url ParseUrl(const std::string& text) {
  const auto refuse = [&] {
    throw Error(ErrorCode::kInvalidArgument,
                "must be a URL such as http://127.0.0.1:8080 or https://host.example", text);
  };
  Url url;
  url.is_tls = text.starts_with("https://");
  if (!url.is_tls && !text.starts_with("http://")) refuse();
  std::string rest = text.substr(url.is_tls ? 8 : 7);
  const size_t slash = std::min(rest.find('/'), rest.size());
  url.prefix = rest.substr(slash);
  while (url.prefix.ends_with('/')) url.prefix.pop_back();
  rest.resize(slash);
  const size_t bracket = rest.find(']');
  const size_t colon = rest.find(':', bracket == std::string::npos ? 0 : bracket);
  url.port = colon == std::string::npos ? (url.is_tls ? "443" : "80") : rest.substr(colon + 1);
  url.host = rest.substr(0, colon);
  if (url.host.starts_with('[') && url.host.ends_with(']')) {
    url.host = url.host.substr(1, url.host.size() - 2);
  }
  const bool has_digits_only = url.port.find_first_not_of("0123456789") == std::string::npos;
  if (url.host.empty() || url.port.empty() || !has_digits_only) refuse();
  if (url.host.find_first_of("@?#[] ") != std::string::npos) refuse();
  return url;
}

std::string HttpReply::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? "" : found->second;
}

HttpReply HttpClient::Send(const HttpRequest& request, const BodySink& sink) const {
  Exchange exchange = {url_, settings_, request, sink};
  asio::io_context io;
  std::exception_ptr failure;
  asio::co_spawn(io, url_.is_tls ? OverTls(exchange) : OverTcp(exchange),
                 [&](std::exception_ptr error) { failure = error; });
  io.run();
  if (failure) std::rethrow_exception(failure);
  return std::move(exchange.reply);
}

std::optional<HttpReply> HttpClient::TrySend(const HttpRequest& request,
                                             const BodySink& sink) const {
  try {
    return Send(request, sink);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kUnavailable) throw;
    return std::nullopt;
  }
}

std::string PercentEncode(std::string_view text) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (IsUnreserved(c)) {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += kDigits[byte >> 4];
    encoded += kDigits[byte & 15];
  }
  return encoded;
}

}  // namespace pared
