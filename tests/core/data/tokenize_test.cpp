// Ids and labels of rows, token by token, on nano-v3's tokenizer. Ids in the comments' words were
// made with the `tokenizers` library.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/data/dataset.h"
#include "tests/core/data/data_fixtures.h"

namespace ds {
namespace {

using Ids = std::vector<std::int32_t>;
constexpr std::int32_t kBos = 0, kEos = 1, kUser = 4084, kAssistant = 4085, kThink = 4079,
                       kThinkEnd = 4080, kCalls = 4087, kCallsEnd = 4088, kCall = 4089,
                       kCallEnd = 4090, kOutput = 4093, kOutputEnd = 4094, kSep = 4095;
constexpr std::int32_t kN = kNoTarget;

TokenizedRow tokenize(const std::string& text, const DatasetOptions& options = {}) {
  const auto row = nlohmann::ordered_json::parse(text);
  const ConvertedRow converted = convert_row(row, detect_format(row).value());
  REQUIRE_MESSAGE(converted.content.has_value(), converted.problem.reason);
  return tokenize_row(converted, options, test::nano_tokenizer());
}

Example usable(const std::string& text, const DatasetOptions& options = {}) {
  TokenizedRow row = tokenize(text, options);
  REQUIRE_MESSAGE(row.example.has_value(), row.problem.reason);
  return *row.example;
}

void check(const Example& example, const Ids& ids, const Ids& labels) {
  CHECK(example.ids == ids);
  CHECK(example.labels == labels);
}

bool skipped() {
  if (test::nano_tokenizer() != nullptr) return false;
  MESSAGE("skipped: nano-v3 is not there");
  return true;
}

std::string user(const std::string& text) {
  return R"({"role": "user", "content": ")" + text + R"("})";
}
std::string assistant(const std::string& text, const std::string& more = "") {
  return R"({"role": "assistant", "content": ")" + text + R"(")" + more + "}";
}
std::string messages(const std::string& list, const std::string& more = "") {
  return R"({"messages": [)" + list + "]" + more + "}";
}

// Three exchanges: sources of 5, 3 and 3 ids (the first with BOS), targets of 2 each.
const std::string kThree =
    messages(user("hi there") + "," + assistant("yes") + "," + user("noon") + "," +
             assistant("no") + "," + user("because") + "," + assistant("yes"));

}  // namespace

TEST_CASE("one exchange: the answer and its end-of-sentence are targets") {
  if (skipped()) return;
  check(usable(messages(user("hi there") + "," + assistant("pin_change"))),
        {kBos, kUser, 1751, 456, kAssistant, kThinkEnd, 82, 261, 65, 2759, kEos},
        {kN, kN, kN, kN, kN, kN, 82, 261, 65, 2759, kEos});
}

TEST_CASE("system, history and the switches of what is learned") {
  if (skipped()) return;
  const std::string row =
      messages(R"({"role": "system", "content": "be brief"},)" + user("hi there") + "," +
               assistant("yes") + "," + user("how far is it") + "," + assistant("distance"));
  const Ids ids = {kBos,       594,        285,       617,  1154,  kUser, 1751, 456,
                   kAssistant, kThinkEnd,  620,       kEos, kUser, 401,   2300, 301,
                   349,        kAssistant, kThinkEnd, 70,   406,   603,   kEos};
  Ids both(ids.size(), kN);
  both[10] = 620;
  both[11] = kEos;
  Ids last(ids.size(), kN);
  for (std::size_t i = 19; i < ids.size(); ++i) both[i] = last[i] = ids[i];
  check(usable(row), ids, both);
  DatasetOptions options;
  options.mask_history = true;
  check(usable(row, options), ids, last);
  options.mask_history = false;
  options.train_on_prompt = true;
  check(usable(row, options), ids, ids);
}

TEST_CASE("a system message in the middle stands at the front; the turns stay") {
  if (skipped()) return;
  check(usable(messages(user("hi there") + "," + assistant("yes") +
                        R"(,{"role": "system", "content": "be brief"},)" + user("noon") + "," +
                        assistant("no"))),
        {kBos, 594, 285, 617, 1154, kUser, 1751, 456, kAssistant, kThinkEnd, 620, kEos, kUser, 612,
         267, kAssistant, kThinkEnd, 612, kEos},
        {kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, 620, kEos, kN, kN, kN, kN, kN, 612, kEos});
}

TEST_CASE("calls are targets with their markers, results are not") {
  if (skipped()) return;
  const std::string row =
      messages(user("how far is it") +
               R"(,{"role": "assistant", "content": null, "tool_calls": [{"function":)"
               R"( {"name": "get_time", "arguments": {"city": "Rome"}}}]},)"
               R"({"role": "tool", "content": "noon"},)" +
               assistant("it is noon"));
  check(usable(row),
        {kBos,     kUser,     401,  2300,       301, 349,  kAssistant, kThinkEnd,  // prompt
         kCalls,   kCall,     714,  65,         86,  2574, kSep,       497,
         495,      354,       336,  2961,       496,                                      // call
         kCallEnd, kCallsEnd, kEos,                                                       //
         kOutput,  612,       267,  kOutputEnd,                                           // result
         284,      301,       939,  267,        kEos},                                    // answer
        {kN,       kN,        kN,   kN,  kN,  kN,   kN,   kN,                             //
         kCalls,   kCall,     714,  65,  86,  2574, kSep, 497, 495, 354, 336, 2961, 496,  //
         kCallEnd, kCallsEnd, kEos,                                                       //
         kN,       kN,        kN,   kN,                                                   //
         284,      301,       939,  267, kEos});
}

TEST_CASE("alpaca: instruction, line break, input; history is learned") {
  if (skipped()) return;
  check(
      usable(R"({"instruction": "Add", "input": "2 and 3", "output": "maybe",)"
             R"( "history": [["hi there", "no"]]})"),
      {kBos, kUser, 1751, 456, kAssistant, kThinkEnd, 612, kEos, kUser, 1575, 201,
       20,   311,   223,  21,  kAssistant, kThinkEnd, 79,  306,  594,   kEos},
      {kN, kN, kN, kN, kN, kN, 612, kEos, kN, kN, kN, kN, kN, kN, kN, kN, kN, 79, 306, 594, kEos});
}

TEST_CASE("prompt_completion: parts are tokenised apart, only the completion is learned") {
  if (skipped()) return;
  check(usable(R"({"prompt": "the cat", "completion": "sat down"})"),
        {kBos, 2007, 1832, 85, 266, 2548, kEos}, {kN, kN, kN, 85, 266, 2548, kEos});
}

TEST_CASE("text: BOS once, EOS at its end as a target") {
  if (skipped()) return;
  const Ids ids = {kBos, 387, 1226, 632, 2431, 2881, kEos};
  const Ids labels = {kN, 387, 1226, 632, 2431, 2881, kEos};
  check(usable(R"({"text": "one two three four five"})"), ids, labels);
  // Text that brings its own.
  const std::string full =
      R"({"text": "<｜begin▁of▁sentence｜>one two three four five<｜end▁of▁sentence｜>"})";
  check(usable(full), ids, labels);
  const TokenizedRow row = tokenize(full);
  REQUIRE(row.repairs.size() == 2);
  CHECK(row.repairs[0].kind == "bos_in_text");
  CHECK(row.repairs[1].kind == "eos_in_text");
}

TEST_CASE("FR-022: BOS exactly once when the user's text begins with it") {
  if (skipped()) return;
  const Ids ids = {kBos, kUser, 1751, 456, kAssistant, kThinkEnd, 620, kEos};
  const std::string bos = "<｜begin▁of▁sentence｜>";
  for (const std::string& text : {bos + "hi there", bos + bos + "hi there"}) {
    const TokenizedRow row = tokenize(messages(user(text) + "," + assistant("yes")));
    REQUIRE(row.example.has_value());
    CHECK(row.example->ids == ids);
    REQUIRE(row.repairs.size() == 1);
    CHECK(row.repairs[0].kind == "bos_in_text");
  }
  // As the system text, where it would stand right behind the first.
  CHECK(usable(messages(R"({"role": "system", "content": ")" + bos + R"(because"},)" +
                        user("noon") + "," + assistant("no")))
            .ids == Ids{kBos, 594, 1691, kUser, 612, 267, kAssistant, kThinkEnd, 612, kEos});
  CHECK(usable(R"({"prompt": ")" + bos + R"(noon", "completion": "no"})").ids ==
        Ids{kBos, 612, 267, 612, kEos});
  // An answer that ends with EOS has one, too.
  CHECK(usable(messages(user("hi there") + "," + assistant("yes<｜end▁of▁sentence｜>"))).ids ==
        ids);
}

TEST_CASE("FR-068: reasoning stays in the trained turn and leaves the history") {
  if (skipped()) return;
  const std::string history = user("hi there") + "," + assistant("<think>noon</think>yes") + "," +
                              user("hi there") + "," + assistant("no") + "," + user("noon") + ",";
  const Ids ids = {kBos, kUser,     1751, 456, kAssistant, kThinkEnd, 620,
                   kEos, kUser,     1751, 456, kAssistant, kThinkEnd, 612,
                   kEos, kUser,     612,  267, kAssistant, kThink,    594,
                   1691, kThinkEnd, 620,  kEos};
  const Ids labels = {kN,  kN,   kN, kN, kN, kN, 620, kEos, kN,   kN,        kN,  kN,  kN,
                      612, kEos, kN, kN, kN, kN, kN,  594,  1691, kThinkEnd, 620, kEos};
  // Inside the answer, in R1's layout, and as a field of its own.
  check(usable(messages(history + assistant("<think>because</think>yes"))), ids, labels);
  check(usable(messages(history + assistant(R"(<think>\nbecause\n</think>\n\nyes)"))), ids, labels);
  check(usable(messages(history + assistant("yes", R"(, "reasoning_content": "because")"))), ids,
        labels);
  // A row that asks for no thinking.
  const Example plain =
      usable(messages(history + assistant("<think>because</think>yes"), R"(, "thinking": false)"));
  CHECK(Ids(plain.ids.end() - 4, plain.ids.end()) == Ids{kAssistant, kThinkEnd, 620, kEos});
}

TEST_CASE("answers marked as not learned") {
  if (skipped()) return;
  const Example example =
      usable(messages(user("hi there") + "," + assistant("yes", R"(, "loss": false)") + "," +
                      user("noon") + "," + assistant("no")));
  check(example,
        {kBos, kUser, 1751, 456, kAssistant, kThinkEnd, 620, kEos, kUser, 612, 267, kAssistant,
         kThinkEnd, 612, kEos},
        {kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, 612, kEos});
  const TokenizedRow none =
      tokenize(messages(user("hi there") + "," + assistant("yes", R"(, "weight": 0)")));
  CHECK_FALSE(none.example.has_value());
  CHECK(none.problem.kind == "no_target");
}

TEST_CASE("proportional truncation: EOS is a target exactly when the answer is whole") {
  if (skipped()) return;
  const std::string row = messages(user("a b c d e f") + "," + assistant("a b c d e f"));
  DatasetOptions options;
  options.cutoff_len = 17;  // all of it: 10 + 7
  CHECK_FALSE(usable(row, options).truncated);
  CHECK(usable(row, options).labels.back() == kEos);
  options.cutoff_len = 16;  // (10, 7, 16): 2t < c, the target is whole
  check(usable(row, options),
        {kBos, kUser, 67, 285, 265, 276, 320, 281, kAssistant, 67, 285, 265, 276, 320, 281, kEos},
        {kN, kN, kN, kN, kN, kN, kN, kN, kN, 67, 285, 265, 276, 320, 281, kEos});
  CHECK(usable(row, options).truncated);
  options.cutoff_len = 10;  // int(10 * 7 / 17) = 4 of the target, 6 of the source
  check(usable(row, options), {kBos, kUser, 67, 285, 265, 276, 67, 285, 265, 276},
        {kN, kN, kN, kN, kN, kN, 67, 285, 265, 276});
}

TEST_CASE("turn by turn with the remaining budget; with mask_history the last turn comes first") {
  if (skipped()) return;
  // Turns: (6, 2), (5, 2), (5, 2); 22 ids.
  DatasetOptions options;
  options.cutoff_len = 17;
  // 8, then 7, then (5, 2) in 2: int(2 * 2 / 7) = 0 of the target.
  check(usable(kThree, options),
        {kBos, kUser, 1751, 456, kAssistant, kThinkEnd, 620, kEos, kUser, 612, 267, kAssistant,
         kThinkEnd, 612, kEos, kUser, 594},
        {kN, kN, kN, kN, kN, kN, 620, kEos, kN, kN, kN, kN, kN, 612, kEos, kN, kN});
  options.mask_history = true;
  // BOS stays; 7 for the last, 7 for the one before, (5, 2) in 2 for the first.
  check(usable(kThree, options),
        {kBos, kUser, 1751, kUser, 612, 267, kAssistant, kThinkEnd, 612, kEos, kUser, 594, 1691,
         kAssistant, kThinkEnd, 620, kEos},
        {kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, kN, 620, kEos});
  options.cutoff_len = 8;  // the last turn alone
  check(usable(kThree, options), {kBos, kUser, 594, 1691, kAssistant, kThinkEnd, 620, kEos},
        {kN, kN, kN, kN, kN, kN, 620, kEos});
}

TEST_CASE("left, right, skip and error") {
  if (skipped()) return;
  const std::string row = messages(user("hi there") + "," + assistant("a b c d e f"));
  // 6 + 7 ids.
  DatasetOptions options;
  options.cutoff_len = 9;
  options.truncation = Truncation::kRight;
  check(usable(row, options), {kBos, kUser, 1751, 456, kAssistant, kThinkEnd, 67, 285, 265},
        {kN, kN, kN, kN, kN, kN, 67, 285, 265});
  options.truncation = Truncation::kLeft;
  // The answer is whole, so is its EOS.
  check(usable(row, options), {kBos, kThinkEnd, 67, 285, 265, 276, 320, 281, kEos},
        {kN, kN, 67, 285, 265, 276, 320, 281, kEos});
  options.cutoff_len = 5;  // the answer has lost its beginning: EOS is no target
  check(usable(row, options), {kBos, 276, 320, 281, kEos}, {kN, 276, 320, 281, kN});
  options.truncation = Truncation::kSkip;
  CHECK(tokenize(row, options).problem.kind == "too_long");
  CHECK(tokenize(row, options).problem.reason == "the row has 13 tokens, at most 5 are allowed");
  options.cutoff_len = 13;
  CHECK(tokenize(row, options).example.has_value());
}

TEST_CASE("FR-020: a row whose targets are all cut away is refused") {
  if (skipped()) return;
  const std::string row = messages(user("hi there") + "," + assistant("yes"));
  DatasetOptions options;
  options.cutoff_len = 6;  // the prompt's length
  options.truncation = Truncation::kRight;
  const TokenizedRow cut = tokenize(row, options);
  CHECK_FALSE(cut.example.has_value());
  CHECK(cut.problem.kind == "no_target");
  CHECK(cut.problem.reason == "no target is left: the row has 8 tokens, the limit is 6");
  // The default rule keeps the answer.
  options.truncation = Truncation::kProportional;
  CHECK(usable(row, options).target_count() == 2);
  // Pre-tokenised: a prompt of 64, a limit of 64.
  std::string ids, labels;
  for (int i = 0; i < 64; ++i) {
    ids += "5, ";
    labels += "-100, ";
  }
  options.cutoff_len = 64;
  const std::string tokens =
      R"({"input_ids": [)" + ids + R"(6, 1], "labels": [)" + labels + "6, 1]}";
  CHECK(tokenize(tokens, options).problem.kind == "no_target");
  options.cutoff_len = 65;
  CHECK(usable(tokens, options).target_count() == 1);
}

TEST_CASE("pre-tokenised rows stay as they are") {
  DatasetOptions options;
  options.vocab_size = 10;
  const auto run = [&](const std::string& text) {
    const auto row = nlohmann::ordered_json::parse(text);
    return tokenize_row(convert_row(row, DataFormat::kTokens), options, nullptr);
  };
  const TokenizedRow good = run(R"({"input_ids": [3, 4, 9], "labels": [-100, 4, 9]})");
  REQUIRE(good.example.has_value());
  check(*good.example, {3, 4, 9}, {kN, 4, 9});
  CHECK(run(R"({"input_ids": [3, 10]})").problem.reason ==
        "input_ids[1]: token id 10, the model's vocabulary needs ids below 10");
  CHECK(run(R"({"input_ids": [3, 4], "labels": [3, 12]})").problem.field == "labels[1]");
  // The first label is never used.
  CHECK(run(R"({"input_ids": [3, 4], "labels": [3, -100]})").problem.kind == "no_target");
  options.cutoff_len = 2;
  CHECK(run(R"({"input_ids": [3, 4, 9]})").example->ids == Ids{3, 4});
  options.truncation = Truncation::kLeft;
  CHECK(run(R"({"input_ids": [3, 4, 9]})").example->ids == Ids{4, 9});
}

TEST_CASE("ids beyond the model's vocabulary drop the row") {
  if (skipped()) return;
  DatasetOptions options;
  options.vocab_size = 4000;  // a model without the control tokens
  CHECK(tokenize(messages(user("hi there") + "," + assistant("yes")), options).problem.kind ==
        "bad_id");
}

TEST_CASE("tokenize_conversation gives the same as a row") {
  if (skipped()) return;
  Conversation chat;
  chat.messages.resize(2);
  chat.messages[0].role = Role::kUser;
  chat.messages[0].content = "hi there";
  chat.messages[1].role = Role::kAssistant;
  chat.messages[1].content = "yes";
  DatasetOptions options;
  std::string reason;
  const auto example = tokenize_conversation(chat, options, *test::nano_tokenizer(), reason);
  REQUIRE(example.has_value());
  CHECK(example->ids == usable(messages(user("hi there") + "," + assistant("yes"))).ids);
  CHECK(reason.empty());
  options.cutoff_len = 6;
  options.truncation = Truncation::kRight;
  CHECK_FALSE(tokenize_conversation(chat, options, *test::nano_tokenizer(), reason).has_value());
  CHECK_FALSE(reason.empty());
}

}  // namespace ds
