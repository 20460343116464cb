// What --version prints.
#pragma once

#include <string>

namespace ds::cli {

std::string version_number();                          // "0.1.0"
std::string commit();                                  // short hash, "unknown" outside a clone
std::string version_text(const std::string& program);  // several lines

}  // namespace ds::cli
