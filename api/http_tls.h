// TLS of the daemon: the certificate from its files, and a connection's bytes with it or without.

#pragma once

#include <boost/asio/async_result.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <memory>
#include <optional>
#include <utility>

#include "config/settings.h"

namespace pared {

// TLS 1.2 and later, with the certificate (and those between it and its authority) and the key that
// the settings name. Null: they name none. Throws kInvalidArgument at /tls_certificate or /tls_key:
// a file cannot be read, is no PEM or is encrypted, or the key is another certificate's. Logs a
// warning where the certificate has expired.
std::shared_ptr<boost::asio::ssl::context> MakeTlsContext(const Settings& settings);

// A connection as Beast and Asio read and write it. Its timeouts are those of tcp().
class HttpStream {
 public:
  using executor_type = boost::beast::tcp_stream::executor_type;

  explicit HttpStream(boost::asio::ip::tcp::socket socket) : tcp_(std::move(socket)) {}

  // From here on bytes are TLS; the handshake is the caller's to make. `context` is kept.
  void StartTls(std::shared_ptr<boost::asio::ssl::context> context) {
    context_ = std::move(context);
    tls_.emplace(tcp_, *context_);
  }
  void EndTls() { tls_.reset(); }  // bytes are plain again

  bool is_tls() const { return tls_.has_value(); }
  boost::beast::tcp_stream& tcp() { return tcp_; }
  boost::beast::ssl_stream<boost::beast::tcp_stream&>& tls() { return *tls_; }
  boost::asio::ip::tcp::socket& socket() { return tcp_.socket(); }
  executor_type get_executor() noexcept { return tcp_.get_executor(); }
  void expires_after(std::chrono::nanoseconds time) { tcp_.expires_after(time); }

  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, size_t)>(
        [this](auto handler, const auto& to) {
          if (tls_) {
            tls_->async_read_some(to, std::move(handler));
          } else {
            tcp_.async_read_some(to, std::move(handler));
          }
        },
        token, buffers);
  }

  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, size_t)>(
        [this](auto handler, const auto& from) {
          if (tls_) {
            tls_->async_write_some(from, std::move(handler));
          } else {
            tcp_.async_write_some(from, std::move(handler));
          }
        },
        token, buffers);
  }

 private:
  boost::beast::tcp_stream tcp_;
  std::shared_ptr<boost::asio::ssl::context> context_;
  std::optional<boost::beast::ssl_stream<boost::beast::tcp_stream&>> tls_;
};

}  // namespace pared
