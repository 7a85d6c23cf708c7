// The tables of the store, as numbered migrations.

#pragma once

#include "storage/sqlite.h"

namespace pared {

// Brings the database to the newest schema, one transaction a migration. Throws kInvalidArgument
// where a newer pared, or no pared, wrote the file.
void Migrate(Database& database);

// How many migrations there are: the newest schema's version.
int64_t SchemaVersion();

}  // namespace pared
