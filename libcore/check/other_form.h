// What a file of the wrong form is after all.
#pragma once

#include <filesystem>

namespace ds::check {

// By its first bytes: the rule "lfs-pointer", "web-page" or "wrong-container"; nullptr when nothing
// is recognised.
const char* other_form(const std::filesystem::path& path);

}  // namespace ds::check
