// Numbers and texts for people, and sizes as people write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ds {

// "17 B", "1.2 GiB": binary units, one decimal.
std::string format_bytes(std::uint64_t bytes);
// "1,234,567".
std::string format_count(std::int64_t count);
// "950", "1.5K", "671.0B": decimal, one decimal, for parameter and token counts.
std::string format_short(double count);
// "850 ms", "12.3 s", "3m 05s", "2h 03m", "3d 04h". "-" for a negative or non-finite number.
std::string format_duration(double seconds);

// Bytes of "200KB" (decimal: 200,000), "5GiB" (binary), "1.5 TB", "4096". Units B, KB .. PB and
// KiB .. PiB in any case; bare K, M, G are refused as ambiguous. Empty when it is no size or does
// not fit 64 bits. A fraction of a byte is cut off.
std::optional<std::uint64_t> parse_size(std::string_view text);

// `text` in double quotes, fit for a message: control characters and invalid UTF-8 as \xNN, cut
// after `limit` bytes (with the length said).
std::string quote_text(std::string_view text, std::size_t limit = 120);

}  // namespace ds
