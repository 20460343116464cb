#include "libcore/check/other_form.h"

#include <fstream>
#include <string>

namespace ds::check {

const char* other_form(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string head(64, '\0');
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  if (head.starts_with("version https://git-lfs")) return "lfs-pointer";
  if (head.starts_with("<!DOCTYPE") || head.starts_with("<!doctype") || head.starts_with("<html")) {
    return "web-page";
  }
  if (head.starts_with("PK\x03\x04") || head.starts_with("GGUF") || head.starts_with("\x80\x02")) {
    return "wrong-container";
  }
  return nullptr;
}

}  // namespace ds::check
