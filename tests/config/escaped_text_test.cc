#include "config/escaped_text.h"

#include <gtest/gtest.h>

namespace pared {
namespace {

TEST(Escaped, LeavesWhatCanBeShown) {
  const std::string text = "Conv/w_1 \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 \\";
  EXPECT_EQ(Escaped(text), text);
  EXPECT_EQ(Escaped(""), "");
}

TEST(Escaped, NamesControlCharacters) {
  EXPECT_EQ(Escaped(std::string("a\x1B[31m\n\0b\x7F", 10)), "a\\x1B[31m\\x0A\\x00b\\x7F");
  EXPECT_EQ(Escaped("\xC2\x9B"), "\\xC2\\x9B");  // a control sequence in one character
}

TEST(Escaped, NamesBytesThatAreNoCharacter) {
  EXPECT_EQ(Escaped("\xFFw\x80"), "\\xFFw\\x80");
  EXPECT_EQ(Escaped("\xE2\x82"), "\\xE2\\x82");                    // cut off
  EXPECT_EQ(Escaped("\xC0\xAF"), "\\xC0\\xAF");                    // longer than it need be
  EXPECT_EQ(Escaped("\xED\xA0\x80"), "\\xED\\xA0\\x80");           // a surrogate
  EXPECT_EQ(Escaped("\xF4\x90\x80\x80"), "\\xF4\\x90\\x80\\x80");  // beyond the last
}

}  // namespace
}  // namespace pared
