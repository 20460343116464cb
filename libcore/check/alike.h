// Many findings of one kind become one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "libcore/check/finding.h"

namespace ds::check {

// Of findings that have rule, kind, found and expected in common, up to four are reported singly;
// of more, the first stands for all and says how many there are.
class Alike {
 public:
  // `make` gives the finding and is only called where it may be reported. `kind`: what the members
  // have in common, in words or as a name pattern.
  template <class Make>
  void add(const char* rule, std::string_view kind, std::string_view found,
           std::string_view expected, Make&& make) {
    Group& group = groups_[{rule, std::string(kind), std::string(found), std::string(expected)}];
    if (++group.count > kShown) return;
    Finding finding = make();
    finding.found = found;
    finding.expected = expected;
    group.first.push_back(std::move(finding));
  }
  // Hands all to `findings` and starts anew.
  void flush(Findings& findings);

 private:
  static constexpr std::int64_t kShown = 4;
  struct Group {
    std::int64_t count = 0;
    std::vector<Finding> first;
  };
  std::map<std::tuple<std::string, std::string, std::string, std::string>, Group> groups_;
};

}  // namespace ds::check
