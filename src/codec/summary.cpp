// SPDX-License-Identifier: Apache-2.0
#include "codec/summary.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <initializer_list>

#include "codec/reader.hpp"

namespace shoal::codec {

namespace {

constexpr int kDeepest = 8;
constexpr std::size_t kLongestText = 60;

const char* element_name(Element element) noexcept {
  static constexpr const char* kNames[] = {
      "?",       "bool",     "int8",      "int16",      "int32",      "int64",
      "uint8",   "uint16",   "uint32",    "uint64",     "float16",    "float32",
      "float64", "float128", "complex64", "complex128", "complex256", "dtype",
  };
  static_assert(std::size(kNames) == kElementCount);
  const auto code = static_cast<std::uint8_t>(element);
  return kNames[code < kElementCount ? code : 0];
}

class Summary {
 public:
  Summary(const MessageView& view, std::size_t most) : view_(view), most_(most) {}

  bool value(Reader& reader, int depth) {
    Item item;
    if (!reader.next(item)) return false;
    switch (item.kind) {
      case Kind::kTuple:
        return sequence(reader, item, "(", item.count == 1 ? ",)" : ")", depth);
      case Kind::kList:
        return sequence(reader, item, "[", "]", depth);
      case Kind::kDict:
        return sequence(reader, item, "{", "}", depth);
      case Kind::kSet:
        return sequence(reader, item, item.count == 0 ? "set(" : "{", item.count == 0 ? ")" : "}",
                        depth);
      case Kind::kFrozenSet:
        return sequence(reader, item, "frozenset({", "})", depth);
      case Kind::kRange:
        return sequence(reader, item, "range(", ")", depth);
      case Kind::kReference: {
        Reader again(view_, item.target);
        return depth < kDeepest ? value(again, depth + 1) : add("...");
      }
      default:
        return leaf(item);
    }
  }

  std::string take() {
    if (text_.size() > most_) {
      text_.resize(most_ - 3);
      while (!text_.empty() && (text_.back() & 0xC0) == 0x80) text_.pop_back();
      if (!text_.empty() && (text_.back() & 0x80) != 0) text_.pop_back();
      text_ += "...";
    }
    return std::move(text_);
  }

 private:
  bool full() const noexcept { return text_.size() > most_; }
  bool add(std::string_view text) {
    text_ += text;
    return true;
  }

  bool sequence(Reader& reader, const Item& item, const char* begin, const char* end, int depth) {
    add(begin);
    if (depth >= kDeepest && item.count > 0) {
      add("...");
      return false;
    }
    for (std::uint64_t i = 0; i < item.count; ++i) {
      if (full()) return false;
      if (i > 0) add(", ");
      if (!value(reader, depth + 1)) return false;
      if (item.kind == Kind::kDict && (!add(": ") || !value(reader, depth + 1))) return false;
    }
    return add(end);
  }

  bool leaf(const Item& item) {
    switch (item.kind) {
      case Kind::kNone:
        return add("None");
      case Kind::kBool:
        return add(item.integer != 0 ? "True" : "False");
      case Kind::kInt:
        return add(std::to_string(item.integer));
      case Kind::kBigInt:
        return add("int(...)");
      case Kind::kFloat:
        return real(item.real);
      case Kind::kComplex:
        add("(");
        real(item.real);
        add(item.imaginary < 0 ? "" : "+");
        return real(item.imaginary) && add("j)");
      case Kind::kText:
        return text(item);
      case Kind::kBytes:
      case Kind::kByteArray:
        return raw(item);
      case Kind::kArray:
        return array(item);
      case Kind::kScalar:
        return add(element_name(item.array.element)) && scalar(item);
      case Kind::kPickle:
        return printable(item.bytes());
      default:
        return date(item);
    }
  }

  bool real(double number) {
    char digits[40];
    const auto end = std::to_chars(digits, digits + sizeof digits, number).ptr;
    const std::string_view shown(digits, static_cast<std::size_t>(end - digits));
    add(shown);
    return shown.find_first_not_of("-0123456789") == std::string_view::npos ? add(".0") : true;
  }

  // Copies printable ASCII and writes other bytes as \xNN; escapes `quote` and backslashes.
  bool escaped(std::span<const std::byte> bytes, char quote) {
    for (const std::byte byte : bytes.first(std::min(bytes.size(), kLongestText))) {
      const auto c = static_cast<char>(byte);
      if (c >= 0x20 && c < 0x7F) {
        if (c == '\\' || c == quote) text_ += '\\';
        text_ += c;
      } else {
        char escape[8];
        std::snprintf(escape, sizeof escape, "\\x%02x", std::to_integer<unsigned>(byte));
        text_ += escape;
      }
    }
    return bytes.size() <= kLongestText || add("...");
  }

  bool text(const Item& item) {
    Item start = item;  // a long text need not be converted whole
    start.data.size = std::min(item.data.size, kLongestText * 4);
    const std::string utf8 = text_utf8(start);
    add("'");
    std::size_t shown = 0;
    for (const char c : utf8) {
      if (++shown > kLongestText && (c & 0xC0) != 0x80) return add("...'");
      if (c == '\n') {
        add("\\n");
      } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
        escaped(std::as_bytes(std::span(&c, 1)), '\'');
      } else {
        if (c == '\\' || c == '\'') text_ += '\\';
        text_ += c;
      }
    }
    return add("'");
  }

  bool raw(const Item& item) {
    add(item.kind == Kind::kBytes ? "b'" : "bytearray(b'");
    escaped(item.bytes(), '\'');
    return add(item.kind == Kind::kBytes ? "'" : "')");
  }

  bool array(const Item& item) {
    add("array(shape=(");
    for (std::size_t i = 0; i < item.array.dimensions; ++i) {
      add((i > 0 ? ", " : "") + std::to_string(item.array.shape[i]));
    }
    add(item.array.dimensions == 1 ? ",), dtype='" : "), dtype='");
    if (item.array.element == Element::kNamed) {
      escaped({item.array.dtype_text, item.array.dtype_size}, '\'');
    } else {
      add(element_name(item.array.element));
    }
    return add("')");
  }

  template <class T>
  T element(const Item& item) {
    T value;
    std::memcpy(&value, item.data.bytes, sizeof value);
    return value;
  }

  bool scalar(const Item& item) {
    add("(");
    switch (item.array.element) {
      case Element::kBool:
        add(element<std::uint8_t>(item) != 0 ? "True" : "False");
        break;
      case Element::kInt8:
        add(std::to_string(element<std::int8_t>(item)));
        break;
      case Element::kInt16:
        add(std::to_string(element<std::int16_t>(item)));
        break;
      case Element::kInt32:
        add(std::to_string(element<std::int32_t>(item)));
        break;
      case Element::kInt64:
        add(std::to_string(element<std::int64_t>(item)));
        break;
      case Element::kUInt8:
        add(std::to_string(element<std::uint8_t>(item)));
        break;
      case Element::kUInt16:
        add(std::to_string(element<std::uint16_t>(item)));
        break;
      case Element::kUInt32:
        add(std::to_string(element<std::uint32_t>(item)));
        break;
      case Element::kUInt64:
        add(std::to_string(element<std::uint64_t>(item)));
        break;
      case Element::kFloat32:
        real(static_cast<double>(element<float>(item)));
        break;
      case Element::kFloat64:
        real(element<double>(item));
        break;
      default:
        add("...");
        break;
    }
    return add(")");
  }

  bool date(const Item& item) {
    if (item.kind == Kind::kTimeDelta) {
      return numbers("timedelta(",
                     {item.delta.days, item.delta.seconds, item.delta.microseconds}) &&
             add(")");
    }
    const auto& day = item.date;
    const auto& time = item.time;
    if (item.kind == Kind::kDate) {
      return numbers("date(", {day.year, day.month, day.day}) && add(")");
    }
    if (item.kind == Kind::kTime) {
      numbers("time(", {time.hour, time.minute, time.second, time.microsecond});
    } else {
      numbers("datetime(", {day.year, day.month, day.day, time.hour, time.minute, time.second,
                            static_cast<std::int64_t>(time.microsecond)});
    }
    return add(time.zone == static_cast<std::uint8_t>(Zone::kUtc) ? ", utc)" : ")");
  }

  bool numbers(const char* begin, std::initializer_list<std::int64_t> values) {
    add(begin);
    const char* separator = "";
    for (const std::int64_t value : values) {
      add(separator + std::to_string(value));
      separator = ", ";
    }
    return true;
  }

  // The encoder's description of a pickled value is already an expression.
  bool printable(std::span<const std::byte> bytes) {
    for (const std::byte byte : bytes) {
      const auto c = static_cast<unsigned char>(byte);
      text_ += c >= 0x20 && c < 0x7F ? static_cast<char>(c) : '?';
    }
    return true;
  }

  const MessageView& view_;
  const std::size_t most_;
  std::string text_;
};

}  // namespace

std::string summarize(const MessageView& view, std::size_t offset, std::size_t max_chars) {
  Summary summary(view, std::max<std::size_t>(max_chars, 16));
  Reader reader(view, offset);
  const bool whole = summary.value(reader, 0);
  std::string text = summary.take();
  if (!whole && reader.error() != nullptr) text += "<unreadable>";
  return text;
}

}  // namespace shoal::codec
