#include "api/http_tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <boost/asio/ssl/context.hpp>
#include <fstream>
#include <string>

#include "base/error.h"
#include "base/log.h"

namespace pared {
namespace {

namespace ssl = boost::asio::ssl;
using boost::system::error_code;

[[noreturn]] void Refuse(const char* pointer, const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message, pointer);
}

void CheckReadable(const std::string& path, const char* pointer) {
  if (!std::ifstream(path, std::ios::binary)) Refuse(pointer, "cannot read the file " + path);
}

std::string TimeText(const ASN1_TIME* time) {
  BIO* bio = BIO_new(BIO_s_mem());
  ASN1_TIME_print(bio, time);
  char text[64] = {};
  const int length = BIO_read(bio, text, sizeof text - 1);
  BIO_free(bio);
  return length > 0 ? std::string(text, static_cast<size_t>(length)) : "";
}

// Clients refuse such a certificate; whoever runs the daemon shall read why.
void WarnOfDates(SSL_CTX* context, const std::string& path) {
  const X509* certificate = SSL_CTX_get0_certificate(context);
  const std::string until = TimeText(X509_get0_notAfter(certificate));
  const bool has_expired = X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0;
  LogEvent(has_expired ? LogLevel::kWarning : LogLevel::kInfo,
           has_expired ? "tls_certificate_expired" : "tls_certificate",
           {{"file", path}, {"valid_until", until}});
}

}  // namespace

std::shared_ptr<ssl::context> MakeTlsContext(const Settings& settings) {
  if (settings.tls_certificate.empty() && settings.tls_key.empty()) return nullptr;
  CheckReadable(settings.tls_certificate, "/tls_certificate");
  CheckReadable(settings.tls_key, "/tls_key");
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  context->set_options(ssl::context::default_workarounds | ssl::context::no_tlsv1 |
                       ssl::context::no_tlsv1_1 | ssl::context::no_compression |
                       SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  error_code error;
  // Nobody is there to type a passphrase.
  context->set_password_callback([](size_t, ssl::context::password_purpose) { return ""; }, error);
  context->use_certificate_chain_file(settings.tls_certificate, error);
  if (error) {
    Refuse("/tls_certificate", "the file " + settings.tls_certificate +
                                   " holds no certificate in PEM form: " + error.message());
  }
  ERR_clear_error();
  // Checks that it belongs to the certificate, too.
  context->use_private_key_file(settings.tls_key, ssl::context::pem, error);
  if (error) {
    Refuse("/tls_key", "the file " + settings.tls_key +
                           " must hold the certificate's private key in PEM form, without a "
                           "passphrase: " +
                           error.message());
  }
  WarnOfDates(context->native_handle(), settings.tls_certificate);
  return context;
}

}  // namespace pared
