#include "libcore/base/hash.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "libcore/base/error.h"

namespace ds {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  ~State() { EVP_MD_CTX_free(context); }
};

namespace {

void expect(int result) {
  if (result != 1) throw Error(ExitCode::kInternal, "SHA-256 is not available in OpenSSL");
}

}  // namespace

Sha256::Sha256() : state_(std::make_unique<State>()) {
  expect(state_->context != nullptr ? 1 : 0);
  expect(EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr));
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(const void* data, std::size_t size) {
  expect(EVP_DigestUpdate(state_->context, data, size));
}

std::string Sha256::finish() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  expect(EVP_DigestFinal_ex(state_->context, digest, &size));
  static constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += kHex[digest[i] >> 4];
    text += kHex[digest[i] & 15];
  }
  return text;
}

std::string sha256(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish();
}

std::string sha256_file(const std::filesystem::path& path) {
  const auto fail = [&path](int code) {
    throw Error(ExitCode::kIo, path.string() + ": cannot be read: " + std::strerror(code));
  };
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(errno);
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  Sha256 hash;
  std::vector<char> buffer(std::size_t{1} << 20);
  for (;;) {
    const ssize_t got = ::read(fd, buffer.data(), buffer.size());
    if (got == 0) break;
    if (got < 0) {
      if (errno == EINTR) continue;
      const int code = errno;
      ::close(fd);
      fail(code);
    }
    hash.update(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(fd);
  return hash.finish();
}

}  // namespace ds
