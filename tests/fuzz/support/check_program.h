// deepseek-check over a fuzzer's files: what the program does behind its flags, with what it prints
// looked at instead of printed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "tools/check/options.h"

namespace ds::fuzz {

// Ends the process when `holds` is false.
void require(bool holds, const char* what);

// By the bits of an input's first byte: 1 --deep, 2 --fix, 4 --compatibility (with what it is asked
// in 8 and 16), and the form of the output in 32 and 64.
check::CheckSettings settings_of(std::uint8_t bits);

// A folder with nothing but the config.json of tests/fuzz/base: what --model may name cheaply.
const std::filesystem::path& base_model();

// Runs the check. It ends with findings, without, or with an Error of bad input or usage; every
// text is UTF-8, every finding names its file; and --fix run again and again comes to an end.
void run_program(check::CheckSettings settings, std::uint8_t bits);

// A whole input: the first byte are flags, the rest is files of these names as input_files.h says,
// put into a folder. `aim` has the settings look at it.
using Aim = void (*)(check::CheckSettings& settings, const std::filesystem::path& folder,
                     std::uint8_t bits);
void run_folder(const std::uint8_t* data, std::size_t size, std::span<const char* const> names,
                Aim aim);

}  // namespace ds::fuzz
