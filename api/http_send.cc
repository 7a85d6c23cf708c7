// Answers on their way: bodies, files, streams.

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string_view>
#include <vector>

#include "api/http_impl.h"

namespace pared {
namespace {

constexpr size_t kLingerBytesMax = size_t{4} << 20;
constexpr size_t kStreamBufferBytes = size_t{32} << 10;
constexpr auto kLingerTime = std::chrono::seconds(2);

// The head of an answer with a body of `length` bytes; without one it ends with the connection, or
// there is none.
std::string Head(const Exchange& exchange, const Response& response,
                 std::optional<uint64_t> length) {
  http::response<http::empty_body> message;
  message.version(exchange.version);
  message.result(static_cast<unsigned>(response.status));
  message.set(http::field::server, "pared/" PARED_VERSION);
  message.set("x-content-type-options", "nosniff");
  if (response.status != 304) message.set(http::field::content_type, response.type);
  for (const auto& [name, value] : response.headers) message.set(name, value);
  message.keep_alive(exchange.keep_alive && !response.stream);
  if (length) message.content_length(*length);
  std::ostringstream text;
  text << message.base();
  return text.str();
}

}  // namespace

// The one place that writes: each more would cost the compiler seconds. False: the peer has gone.
asio::awaitable<bool> HttpServer::Impl::Write(Connection& connection, std::string_view bytes) {
  connection.stream.expires_after(idle_time());
  auto [error, count] = co_await asio::async_write(
      connection.stream, asio::buffer(bytes.data(), bytes.size()), kAwait);
  co_return !error;
}

asio::awaitable<bool> HttpServer::Impl::Send(Connection& connection, const Exchange& exchange,
                                             const Response& response) {
  if (response.stream) co_return co_await SendStream(connection, exchange, response);
  if (!response.file.empty()) co_return co_await SendFile(connection, exchange, response);
  const bool is_unchanged = response.status == 304;
  std::string text =
      Head(exchange, response, is_unchanged ? std::nullopt : std::optional(response.body.size()));
  if (!exchange.is_head && !is_unchanged) text += response.body;
  co_return co_await Write(connection, text);
}

asio::awaitable<bool> HttpServer::Impl::SendFile(Connection& connection, const Exchange& exchange,
                                                 const Response& response) {
  std::ifstream file(response.file, std::ios::binary);
  file.seekg(response.file_first);
  const auto bytes = static_cast<uintmax_t>(response.file_bytes);
  const std::string head = Head(exchange, response, bytes);
  bool is_sent = co_await Write(connection, head);
  if (exchange.is_head) co_return is_sent;
  std::vector<char> chunk(kChunkBytes);
  for (uintmax_t sent = 0; is_sent && sent < bytes;) {
    file.read(chunk.data(),
              static_cast<std::streamsize>(std::min<uintmax_t>(chunk.size(), bytes - sent)));
    const auto filled = static_cast<size_t>(file.gcount());
    if (filled == 0) co_return false;  // shorter than it was: the peer sees the length missed
    is_sent = co_await Write(connection, std::string_view(chunk.data(), filled));
    sent += filled;
  }
  co_return is_sent;
}

// Without a length: the stream's end is the connection's. A peer that has gone is noticed within
// one poll, so that its place is free for another.
asio::awaitable<bool> HttpServer::Impl::SendStream(Connection& connection, const Exchange& exchange,
                                                   const Response& response) {
  // What a peer has not read waits in the kernel. With so little room there one that does not read
  // is noticed: a write to it comes to no end, and after idle_time() so does the connection.
  error_code ignored;
  connection.stream.socket().set_option(
      asio::socket_base::send_buffer_size(static_cast<int>(kStreamBufferBytes)), ignored);
  const std::string head = Head(exchange, response, std::nullopt);
  bool is_sent = co_await Write(connection, head);
  asio::steady_timer pause(io);
  while (is_sent && !exchange.is_head && !is_stopping && !HasGone(connection.stream)) {
    const auto ask = [&]() -> asio::awaitable<std::optional<std::string>> {
      co_return response.stream();
    };
    const std::optional<std::string> text =
        co_await asio::co_spawn(streams, ask, asio::use_awaitable);
    if (!text) break;
    if (!text->empty()) is_sent = co_await Write(connection, *text);
    pause.expires_after(kPollInterval);
    co_await pause.async_wait(kAwait);
  }
  co_return false;
}

// Takes in some of what the peer still sends: closing on unread bytes would reset the connection
// and could cost the peer the answer.
asio::awaitable<void> HttpServer::Impl::Linger(Connection& connection) {
  error_code ignored;
  if (!connection.stream.is_tls()) {
    connection.stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  }
  std::vector<char> chunk(kChunkBytes);
  connection.stream.expires_after(kLingerTime);
  for (size_t taken = 0; taken < kLingerBytesMax;) {
    auto [error, count] = co_await connection.stream.async_read_some(asio::buffer(chunk), kAwait);
    if (error) break;
    taken += count;
  }
}

// Tells the peer that nothing is missing from what it got: the end of a stream is else no different
// from a connection that somebody has cut.
asio::awaitable<void> HttpServer::Impl::EndTls(Connection& connection) {
  if (!connection.stream.is_tls() || !connection.stream.socket().is_open()) co_return;
  connection.stream.expires_after(kLingerTime);
  co_await connection.stream.tls().async_shutdown(kAwait);  // a peer that has gone: no matter
}

}  // namespace pared
