// Compiles the file that PARED_LOOPS names once for each instruction set, in namespaces plain, avx2
// and avx512 (x86 only the last two): the compiler vectorizes its loops for that set.
//
//   namespace {
//   #define PARED_LOOPS "kernels/sums_body.h"
//   #include "kernels/each_isa.h"
//   }
//
// No include guard on purpose: each includer makes its own copies.

namespace plain {
#include PARED_LOOPS
}  // namespace plain

#ifdef __x86_64__
#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {
#include PARED_LOOPS
}  // namespace avx2
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
namespace avx512 {
#include PARED_LOOPS
}  // namespace avx512
#pragma GCC pop_options
#endif

#undef PARED_LOOPS
