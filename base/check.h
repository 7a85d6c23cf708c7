// Checks of invariants that only a bug can break. Input, disk and network never reach them.

#pragma once

#include <cstdio>
#include <cstdlib>

// Aborts, in all builds, with the condition and its place.
#define PARED_CHECK(condition)                                                           \
  do {                                                                                   \
    if (!(condition)) [[unlikely]] {                                                     \
      std::fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                      \
    }                                                                                    \
  } while (false)

// The same where NDEBUG is not defined; costs nothing elsewhere.
#ifdef NDEBUG
#define PARED_DCHECK(condition) static_cast<void>(sizeof(!(condition)))
#else
#define PARED_DCHECK(condition) PARED_CHECK(condition)
#endif
