// What is wrong with a container's bytes, for programs that tell one defect from another.
#pragma once

#include <string>
#include <utility>

#include "libcore/base/error.h"

namespace ds {

// The rules of reference/formats.md sections 1 and 2, one value each.
enum class ContainerDefect {
  kNone,
  // A safetensors file.
  kTooShort,         // fewer than 8 bytes
  kHeaderTooLong,    // the header's length is above the limit
  kHeaderPastEnd,    // the header does not end inside the file
  kHeaderNotUtf8,    //
  kHeaderSyntax,     // no JSON object, or an entry of another form
  kUnknownDtype,     //
  kBadMetadata,      // __metadata__ is no object of strings
  kDuplicateName,    // two entries, or two metadata values, of one name
  kOffsetsReversed,  // a tensor ends before it begins
  kHole,             // bytes that belong to no tensor
  kOverlap,          // two tensors share bytes
  kSizeOverflow,     // the shape's size does not fit 64 bits
  kPartialBytes,     // elements of less than 8 bits that do not fill whole bytes
  kSizeMismatch,     // shape and dtype need another number of bytes than the offsets give
  kTruncated,        // the file ends before its tensors do
  kTrailing,         // bytes after the last tensor
  // An index file.
  kIndexSyntax,     // no JSON, or a value of another form
  kNoWeightMap,     //
  kIndexDuplicate,  // a tensor or a key twice
  kUnsafeShard,     // a shard name that is no plain file name
};

class ContainerError : public Error {
 public:
  // `subject`: the tensor or key concerned, may be empty.
  ContainerError(ContainerDefect defect, const std::string& message, std::string hint,
                 std::string subject)
      : Error(ExitCode::kBadInput, message, std::move(hint)),
        defect_(defect),
        subject_(std::move(subject)) {}
  ContainerDefect defect() const { return defect_; }
  const std::string& subject() const { return subject_; }

 private:
  ContainerDefect defect_;
  std::string subject_;
};

}  // namespace ds
