// A client of a local HTTP server that writes and reads plain bytes.

#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <system_error>

namespace pared {

class Client {
 public:
  explicit Client(uint16_t port) : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      throw std::system_error(errno, std::generic_category(), "connect");
    }
    timeval limit = {.tv_sec = 20, .tv_usec = 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~Client() { close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Send(const std::string& bytes) { send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

  // Says that nothing more will be sent; answers are still read.
  void EndSending() { shutdown(socket_, SHUT_WR); }

  // What comes until `text` is part of it.
  std::string ReadUntil(const std::string& text) {
    std::string read;
    char byte = 0;
    while (read.find(text) == std::string::npos && recv(socket_, &byte, 1, 0) == 1) read += byte;
    return read;
  }

  // Appends what has come; false: the server has closed.
  bool ReadMore(std::string& text) {
    char buffer[4096];
    const ssize_t count = recv(socket_, buffer, sizeof buffer, 0);
    if (count > 0) text.append(buffer, static_cast<size_t>(count));
    return count > 0;
  }

  // All that comes until the server closes.
  std::string ReadToEnd() {
    std::string text;
    while (ReadMore(text)) continue;
    return text;
  }

 private:
  int socket_;
};

}  // namespace pared
