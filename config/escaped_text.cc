#include "config/escaped_text.h"

#include <cstddef>

namespace pared {
namespace {

unsigned char ByteAt(std::string_view text, size_t i) {
  return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
}

bool Continues(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// Bytes of the character that `text` begins with; 0: none that can be shown. RFC 3629: no encoding
// longer than it need be, no surrogates, nothing beyond U+10FFFF. U+0080 to U+009F are controls.
size_t CharacterSize(std::string_view text) {
  const unsigned char first = ByteAt(text, 0), second = ByteAt(text, 1);
  if (first < 0x80) return first >= 0x20 && first != 0x7F ? 1 : 0;
  if (!Continues(second)) return 0;
  if (first >= 0xC2 && first <= 0xDF) return first == 0xC2 && second < 0xA0 ? 0 : 2;
  if (!Continues(ByteAt(text, 2))) return 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool is_character = (first != 0xE0 || second >= 0xA0) && (first != 0xED || second < 0xA0);
    return is_character ? 3 : 0;
  }
  const bool is_character = first >= 0xF0 && first <= 0xF4 && (first != 0xF0 || second >= 0x90) &&
                            (first != 0xF4 || second < 0x90);
  return is_character && Continues(ByteAt(text, 3)) ? 4 : 0;
}

}  // namespace

std::string Escaped(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string escaped;
  while (!text.empty()) {
    const size_t size = CharacterSize(text);
    if (size > 0) {
      escaped += text.substr(0, size);
    } else {
      const unsigned char byte = ByteAt(text, 0);
      escaped += {'\\', 'x', kDigits[byte / 16], kDigits[byte % 16]};
    }
    text.remove_prefix(size > 0 ? size : 1);
  }
  return escaped;
}

}  // namespace pared
