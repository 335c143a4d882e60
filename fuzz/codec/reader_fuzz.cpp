// SPDX-License-Identifier: Apache-2.0
//
// libFuzzer over the C++ reader and the summary: any bytes, no attachments. The Python decoder is
// fuzzed by tests/python/pickling/test_codec.py (mutations) under the same sanitizers.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Isrc \
//       fuzz/codec/reader_fuzz.cpp src/codec/reader.cpp src/codec/summary.cpp \
//       src/arena/*.cpp src/os/*.cpp src/testing/*.cpp -o build/reader_fuzz
//   build/reader_fuzz -max_len=4096 fuzz/codec/corpus
#include <cstdint>
#include <cstdlib>

#include "codec/reader.hpp"
#include "codec/summary.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  shoal::codec::MessageView view;
  view.bytes = reinterpret_cast<const std::byte*>(data);
  view.size = size;
  shoal::codec::Reader reader(view);
  shoal::codec::Item item;
  while (reader.next(item)) {
    if (item.kind == shoal::codec::Kind::kText) shoal::codec::text_utf8(item);
  }
  if (reader.error() == nullptr || reader.offset() > size) std::abort();
  shoal::codec::Reader skipper(view);
  while (skipper.skip()) continue;
  if (shoal::codec::summarize(view, 0, 200).size() > 212) std::abort();
  return 0;
}
