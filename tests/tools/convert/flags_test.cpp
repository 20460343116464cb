// Help, version and man page of deepseek-convert.
#include "tests/support/man_page.h"
#include "tests/tools/convert/fixture.h"

namespace ds::test {

TEST_CASE("usage, help, version, and the man page has every flag") {
  CHECK(convert({}).exit_code == 2);
  CHECK(convert({"wieghts"}).exit_code == 2);
  const Outcome help = convert({"weights", "--help"});
  CHECK(help.exit_code == 0);
  CHECK(help.err.empty());
  CHECK(convert({"--version_only"}).exit_code == 0);
  for (const std::string& problem :
       man_page_problems("deepseek-convert", {"weights", "merge", "adapter", "data"})) {
    FAIL_CHECK(problem);
  }
}

}  // namespace ds::test
