// The tables of the store, as numbered migrations.

#pragma once

#include "storage/sqlite.h"

namespace pared {

// How many migrations there are: the newest schema's version.
int64_t SchemaVersion();

// Brings the database to `target` of the schema, the newest by default, one transaction a
// migration. Throws kInvalidArgument where a newer pared, or no pared, wrote the file.
void Migrate(Database& database, int64_t target = SchemaVersion());

}  // namespace pared
