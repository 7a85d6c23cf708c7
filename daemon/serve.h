// `pared serve`: the daemon, from its settings to its end.

#pragma once

#include <string>
#include <vector>

namespace pared {

// Runs until SIGTERM or SIGINT, and ends what it has begun as docs/operations.md says. SIGHUP reads
// the command line's file, and the certificate, again; without --config it ends the daemon, as the
// end of a terminal should. `arguments` are those of ReadCommandLine. Throws what keeps it from
// starting.
void Serve(const std::vector<std::string>& arguments);

}  // namespace pared
