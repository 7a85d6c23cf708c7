// The web page, whose files (api/web) are embedded in the program.

#pragma once

#include <span>
#include <string_view>

#include "api/service.h"

namespace pared {

struct WebFile {
  std::string_view name;  // "app.js"
  std::string_view type;  // "text/javascript; charset=utf-8"
  std::string_view bytes;
};

// Generated when pared is built. chart.js (Chart.js) is among them where it could be fetched.
std::span<const WebFile> WebFiles();

// GET / is index.html, GET /web/{name} the others. Both are public: they hold no data.
Response GetWebPage(const Service& service, const Request& request);
Response GetWebFile(const Service& service, const Request& request);
bool IsWebPath(std::string_view path);

}  // namespace pared
