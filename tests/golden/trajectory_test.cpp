// Whole training runs against peft + torch: 12 steps of LoRA and LoRA+, 6 of all parameters, an
// expert without tokens, and the property tests that need a model.
#include <map>

#include "libcore/optim/optimizer.h"
#include "libcore/optim/schedule.h"
#include "libcore/train/lora_init.h"
#include "libcore/train/trainer.h"
#include "tests/golden/golden_model.h"

using namespace ds;
using namespace ds::test;

namespace {

OptimizerConfig golden_optimizer(bool lora_plus) {
  return {.learning_rate = 1e-3,
          .lora_plus = lora_plus,
          .loraplus_lr_ratio = 16.0,
          .weight_decay = 0.01,
          .max_grad_norm = 1.0};
}

const Schedule kSchedule{.kind = ScheduleKind::kLinear, .warmup_steps = 3, .total_steps = 12};

// Window of step s (from 0): micro-batches 2s mod 4 and (2s + 1) mod 4.
Window golden_window(const SafetensorsFile& file, std::int64_t step) {
  Window window;
  for (const std::int64_t i : {2 * step % 4, (2 * step + 1) % 4}) {
    window.batches.push_back(read_batch(file, "mb" + std::to_string(i) + ".").batch);
    window.targets += window.batches.back().target_count();
    window.tokens += window.batches.back().tokens();
  }
  return window;
}

std::string peft_key(const Parameter& parameter) { return "base_model.model." + parameter.name; }

double largest_difference(const Parameter& parameter, const std::vector<float>& wanted) {
  double worst = 0.0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double d = std::fabs(static_cast<double>(parameter.value.as<float>()[i]) - wanted[i]);
    worst = std::isnan(d) ? INFINITY : std::max(worst, d);
  }
  return worst;
}

// A model with the golden adapter's shape, A as given, B = 0.
void start_lora(GoldenModel& golden, const std::filesystem::path& folder) {
  golden.lora = load_lora_config(folder / "final");
  golden.targets = match_targets(golden.lora, golden.config);
  golden.model->add_lora(golden.lora, golden.targets);
  golden.model->allocate_gradients();
  const auto start = SafetensorsFile::open(folder / "start.safetensors");
  for (Parameter* parameter : golden.model->parameters()) {
    if (start.find(peft_key(*parameter)) == nullptr) continue;  // B
    const auto values = float_values(start, peft_key(*parameter));
    std::copy(values.begin(), values.end(), parameter->value.as<float>());
  }
}

}  // namespace

TEST_CASE("12 steps of LoRA and LoRA+ follow peft's trajectory") {
  const auto root = goldens();
  if (root.empty()) return;
  const auto train = root / "tiny-v3" / "train";
  const auto batches = SafetensorsFile::open(train / "microbatches.safetensors");
  for (const std::string method : {"lora", "loraplus"}) {
    CAPTURE(method);
    GoldenModel golden(root / "tiny-v3" / "tiny-v3");
    start_lora(golden, train / method);
    Optimizer optimizer(golden_optimizer(method == "loraplus"), golden.model->parameters());
    Trainer trainer(*golden.model, optimizer, golden.device, 0, Recompute::kNone);
    const auto facts = read_json(train / method / "trajectory.json");
    double worst_loss = 0.0;
    double worst_norm = 0.0;
    for (std::int64_t step = 0; step < 12; ++step) {
      const auto& wanted = facts["steps"][static_cast<std::size_t>(step)];
      const Window window = golden_window(batches, step);
      CHECK(window.targets == wanted["targets"].get<std::int64_t>());
      const UpdateReport report = trainer.update(window, step, kSchedule.factor(step));
      CHECK(report.divergence.empty());
      worst_loss =
          std::max(worst_loss, std::fabs(report.mean_loss() - wanted["loss"].get<double>()));
      worst_norm = std::max(worst_norm,
                            std::fabs(report.step.grad_norm - wanted["grad_norm"].get<double>()));
      const auto rates = wanted["lr"].get<std::vector<double>>();
      CHECK(report.step.lr_a == doctest::Approx(rates[0]).epsilon(1e-12));
      if (rates.size() > 2) CHECK(report.step.lr_b == doctest::Approx(rates[2]).epsilon(1e-12));
      if (step == 5) {
        const auto state = SafetensorsFile::open(train / method / "after_step_6.safetensors");
        double worst = 0.0;
        for (Parameter* p : golden.model->parameters()) {
          worst =
              std::max(worst, largest_difference(*p, float_values(state, "param." + peft_key(*p))));
        }
        CHECK(worst <= (method == "lora" ? 1e-5 : 5e-5));
        for (const auto& s : optimizer.states()) CHECK(s.step == 6);
      }
    }
    CHECK(worst_loss <= 1e-5);
    CHECK(worst_norm <= 1e-5);
    const auto final_file =
        SafetensorsFile::open(train / method / "final" / "adapter_model.safetensors");
    double worst = 0.0;
    for (Parameter* p : golden.model->parameters()) {
      worst = std::max(worst, largest_difference(*p, float_values(final_file, peft_key(*p))));
    }
    CHECK(worst <= (method == "lora" ? 1e-5 : 5e-5));
    MESSAGE(method << ": losses differ by " << worst_loss << ", norms by " << worst_norm
                   << ", final weights by " << worst);
  }
}

TEST_CASE("6 steps of full-parameter training") {
  const auto root = goldens();
  if (root.empty()) return;
  const auto train = root / "tiny-moonlight" / "train";
  const auto batches = SafetensorsFile::open(train / "microbatches.safetensors");
  GoldenModel golden(root / "tiny-moonlight" / "tiny-moonlight");
  golden.model->make_all_trainable();
  golden.model->allocate_gradients();
  Optimizer optimizer(golden_optimizer(false), golden.model->parameters());
  Trainer trainer(*golden.model, optimizer, golden.device, 0, Recompute::kNone);
  const auto facts = read_json(train / "full" / "trajectory.json");
  double worst_loss = 0.0;
  for (std::int64_t step = 0; step < 6; ++step) {
    const UpdateReport report =
        trainer.update(golden_window(batches, step), step, kSchedule.factor(step));
    worst_loss =
        std::max(worst_loss,
                 std::fabs(report.mean_loss() -
                           facts["steps"][static_cast<std::size_t>(step)]["loss"].get<double>()));
  }
  CHECK(worst_loss <= 1e-5);
  const auto final_file = SafetensorsFile::open(train / "full" / "final.safetensors");
  double worst = 0.0;
  for (Parameter* p : golden.model->parameters()) {
    worst = std::max(worst, largest_difference(*p, float_values(final_file, p->name)));
  }
  CHECK(golden.model->parameters().size() == final_file.tensors().size());
  CHECK(worst <= 5e-6);
  MESSAGE("full: losses differ by " << worst_loss << ", final weights by " << worst);
}

TEST_CASE("an expert without tokens keeps its adapter and has no optimizer state") {
  const auto root = goldens();
  if (root.empty()) return;
  const auto train = root / "tiny-v3" / "train";
  const auto batches = SafetensorsFile::open(train / "microbatches.safetensors");
  const auto facts = read_json(train / "starved_expert.json");
  // The golden run was made with the selection bias of layer 1, expert 7 at -10: a copy of the
  // checkpoint with those four bytes changed.
  const auto folder = make_temp_dir("starved");
  std::filesystem::copy(
      root / "tiny-v3" / "tiny-v3", folder,
      std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
  std::filesystem::permissions(folder / "model.safetensors", std::filesystem::perms::owner_all);
  {
    const auto file = SafetensorsFile::open(folder / "model.safetensors");
    const TensorInfo* bias = file.find("model.layers.1.mlp.gate.e_score_correction_bias");
    REQUIRE(bias != nullptr);
    std::fstream out(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(bias->begin + 7 * 4));
    const float value = -10.0f;
    out.write(reinterpret_cast<const char*>(&value), 4);
  }
  GoldenModel golden(folder);
  start_lora(golden, train / "lora");
  std::map<std::string, std::vector<float>> before;
  for (Parameter* p : golden.model->parameters()) {
    before[peft_key(*p)].assign(p->value.as<float>(), p->value.as<float>() + p->value.size());
  }
  Optimizer optimizer(golden_optimizer(false), golden.model->parameters());
  Trainer trainer(*golden.model, optimizer, golden.device, 0, Recompute::kNone);
  for (std::int64_t step = 0; step < 4; ++step) {
    const UpdateReport report =
        trainer.update(golden_window(batches, step), step, kSchedule.factor(step));
    // The golden run drew other batches: its losses are not ours, its skipped parameters are.
    const auto skipped =
        facts["steps"][static_cast<std::size_t>(step)]["parameters_without_gradient"];
    CHECK(static_cast<std::int64_t>(optimizer.parameters().size()) - report.step.updated ==
          skipped.get<std::int64_t>());
  }
  const auto starved = facts["keys"].get<std::vector<std::string>>();
  std::size_t found = 0;
  for (std::size_t i = 0; i < optimizer.parameters().size(); ++i) {
    const Parameter& p = *optimizer.parameters()[i];
    if (std::find(starved.begin(), starved.end(), peft_key(p)) == starved.end()) {
      CHECK_MESSAGE(optimizer.states()[i].step == 4, p.name);
      continue;
    }
    ++found;
    CHECK(optimizer.states()[i].step == 0);
    CHECK_FALSE(optimizer.states()[i].exp_avg);
    CHECK(largest_difference(p, before[peft_key(p)]) == 0.0);
  }
  CHECK(found == starved.size());
  std::filesystem::remove_all(folder);
}

TEST_CASE("properties: B = 0 is the base, checkpointing and threads do not change results") {
  const auto root = goldens();
  if (root.empty()) return;
  const auto folder = root / "tiny-v3" / "tiny-v3";
  const auto inputs = SafetensorsFile::open(root / "tiny-v3" / "forward.safetensors");
  const GoldenBatch ragged = read_batch(inputs, "ragged.");

  GoldenModel base(folder);
  GoldenModel adapted(folder);
  start_lora(adapted, root / "tiny-v3" / "train" / "lora");
  CHECK(all_logits(base, ragged.batch) == all_logits(adapted, ragged.batch));

  // Same bits with and without recomputation, dropout included; near-equal for another thread
  // count.
  const auto gradients = [&](Recompute recompute, int threads, double dropout) {
    GoldenModel golden(folder, DType::kF32, threads);
    golden.lora = load_lora_config(root / "tiny-v3" / "lora" / "all");
    golden.lora.dropout = dropout;
    golden.targets = match_targets(golden.lora, golden.config);
    golden.model->add_lora(golden.lora, golden.targets);
    load_adapter(root / "tiny-v3" / "lora" / "all", golden.lora, golden.model->parameters());
    golden.model->allocate_gradients();
    golden.exec.training = true;
    golden.exec.seed = 7;
    golden.exec.step_stream = 3;
    golden.model->forward_backward(golden.exec, ragged.batch, 1.0 / 48.0, recompute);
    std::vector<float> all;
    for (Parameter* p : golden.model->parameters()) {
      all.insert(all.end(), p->grad.as<float>(), p->grad.as<float>() + p->grad.size());
    }
    return all;
  };
  const auto plain = gradients(Recompute::kNone, 2, 0.0);
  CHECK(plain == gradients(Recompute::kNone, 2, 0.0));
  CHECK(plain == gradients(Recompute::kFull, 2, 0.0));
  CHECK(plain == gradients(Recompute::kSelective, 2, 0.0));
  const auto dropped = gradients(Recompute::kNone, 2, 0.3);
  CHECK(dropped == gradients(Recompute::kFull, 2, 0.3));
  CHECK(dropped == gradients(Recompute::kSelective, 2, 0.3));
  CHECK(dropped != plain);
  const auto single = gradients(Recompute::kNone, 1, 0.0);
  double worst = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(plain[i]) - single[i]));
    largest = std::max(largest, std::fabs(static_cast<double>(plain[i])));
  }
  CHECK(worst <= 2e-5 * largest);
}

TEST_CASE("rows together = rows apart (packing isolation, accumulation)") {
  const auto root = goldens();
  if (root.empty()) return;
  const auto inputs = SafetensorsFile::open(root / "tiny-v3" / "forward.safetensors");
  const GoldenBatch ragged = read_batch(inputs, "ragged.");
  const auto difference = [](const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    double worst = 0.0;
    double largest = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      worst = std::max(worst, std::fabs(static_cast<double>(a[i]) - b[i]));
      largest = std::max(largest, std::fabs(static_cast<double>(a[i])));
    }
    return worst / largest;
  };
  const auto collect = [](GoldenModel& golden) {
    std::vector<float> all;
    for (Parameter* p : golden.model->parameters()) {
      all.insert(all.end(), p->grad.as<float>(), p->grad.as<float>() + p->grad.size());
    }
    return all;
  };
  GoldenModel together(root / "tiny-v3" / "tiny-v3");
  together.load_lora(root / "tiny-v3" / "lora" / "all");
  together.model->forward_backward(together.exec, ragged.batch, 1.0 / 48.0, Recompute::kNone);
  GoldenModel apart(root / "tiny-v3" / "tiny-v3");
  apart.load_lora(root / "tiny-v3" / "lora" / "all");
  double loss = 0.0;
  for (std::size_t row = 0; row + 1 < ragged.batch.segments.size(); ++row) {
    TokenBatch one;
    const auto begin = static_cast<std::size_t>(ragged.batch.segments[row]);
    const auto end = static_cast<std::size_t>(ragged.batch.segments[row + 1]);
    one.segments = {0, static_cast<std::int32_t>(end - begin)};
    for (std::size_t i = begin; i < end; ++i) {
      one.ids.push_back(ragged.batch.ids[i]);
      one.positions.push_back(ragged.batch.positions[i]);
      one.targets.push_back(ragged.batch.targets[i]);
    }
    loss += apart.model->forward_backward(apart.exec, one, 1.0 / 48.0, Recompute::kNone).loss;
  }
  CHECK(difference(collect(together), collect(apart)) <= 2e-5);
  CHECK(std::fabs(together.model->loss(together.exec, ragged.batch).loss - loss) / 48.0 <= 1e-5);
}
