#include "kernels/cpu.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "base/error.h"

namespace pared {
namespace {

TEST(Cpu, TheReferenceIsAlwaysThere) { EXPECT_EQ(AvailableIsas().front(), Isa::kReference); }

TEST(Cpu, EveryLevelHasTheNameThatSelectsIt) {
  EXPECT_STREQ(IsaName(Isa::kReference), "reference");
  EXPECT_STREQ(IsaName(Isa::kNeonDot), "neon_dot");
  EXPECT_STREQ(IsaName(Isa::kNeonI8mm), "neon_i8mm");
  EXPECT_STREQ(IsaName(Isa::kAvx2), "avx2");
  EXPECT_STREQ(IsaName(Isa::kAvxVnni), "avxvnni");
  EXPECT_STREQ(IsaName(Isa::kAvx512Vnni), "avx512vnni");
}

TEST(Cpu, Avx512DoesNotImplyTheVexEncoding) {
  EXPECT_FALSE(Includes(Isa::kAvx512Vnni, Isa::kAvxVnni));
  EXPECT_TRUE(Includes(Isa::kAvxVnni, Isa::kAvxVnni));
  EXPECT_TRUE(Includes(Isa::kAvx512Vnni, Isa::kAvx2));
  EXPECT_FALSE(Includes(Isa::kAvx2, Isa::kAvx512Vnni));
}

TEST(Cpu, NoLevelIncludesOneOfAnotherArchitecture) {
  EXPECT_TRUE(Includes(Isa::kNeonI8mm, Isa::kNeonDot));
  EXPECT_FALSE(Includes(Isa::kNeonDot, Isa::kNeonI8mm));
  EXPECT_FALSE(Includes(Isa::kAvx2, Isa::kNeonDot));
  EXPECT_FALSE(Includes(Isa::kNeonI8mm, Isa::kAvx2));
  EXPECT_TRUE(Includes(Isa::kNeonDot, Isa::kReference));
}

// CTest runs the binary once for each level: the cap must take hold.
TEST(Cpu, TheEnvironmentCapsTheSelection) {
  const char* cap = std::getenv("PARED_KERNELS");
  if (cap == nullptr) GTEST_SKIP() << "PARED_KERNELS is not set";
  EXPECT_STREQ(IsaName(SelectedIsa()), cap);
}

TEST(CpuDeathTest, ANameThatDoesNotExistIsAnError) {
  EXPECT_EXIT(
      {
        setenv("PARED_KERNELS", "sse9", 1);
        try {
          SelectedIsa();
        } catch (const Error& e) {
          std::exit(e.code() == ErrorCode::kInvalidArgument && e.where() == "PARED_KERNELS" ? 7
                                                                                            : 8);
        }
      },
      testing::ExitedWithCode(7), "");
}

TEST(Cpu, HasAName) { EXPECT_NE(CpuName(), "unknown"); }

}  // namespace
}  // namespace pared
