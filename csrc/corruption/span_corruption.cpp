#include "span_corruption.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "draws.h"

namespace triarch {
namespace {

// Copies whole blocks: up to kBlock - 1 tokens more than asked for, which what follows overwrites. Most spans fit a
// block, and a branch that depends on their lengths would be mispredicted for every span.
struct CopyBlocks {
  template <int kBlock>
  static void copy(int32_t* out, const int32_t* tokens, int64_t count) {
    std::memcpy(out, tokens, kBlock * sizeof(int32_t));
    for (int64_t done = kBlock; done < count; done += kBlock) {
      std::memcpy(out + done, tokens + done, kBlock * sizeof(int32_t));
    }
  }
};

struct CopyExactly {
  template <int kBlock>
  static void copy(int32_t* out, const int32_t* tokens, int64_t count) {
    std::memcpy(out, tokens, count * sizeof(int32_t));
  }
};

constexpr int kNoiseBlock = 8, kCleanBlock = 32;

// Draws lengths of 1 or more with the sum `total`, one for each span, as the numbers of the spans' last items.
class SpanLengths {
 public:
  SpanLengths(int64_t total, int64_t spans)
      : total_(total), spans_(spans), is_last_(bytes_of_set(total)), last_items_(spans + kAtOnce) {}

  const int32_t* draw(Draws& draws) {
    std::fill(is_last_.begin(), is_last_.end(), 0);
    draws.subset(total_ - 1, spans_ - 1, is_last_.data());
    is_last_[total_ - 1] = 1;
    read_set(is_last_.data(), total_, last_items_.data());
    return last_items_.data();
  }

 private:
  int64_t total_, spans_;
  std::vector<uint8_t> is_last_;  // whether a span ends with an item
  std::vector<int32_t> last_items_;
};

template <class Copy>
void corrupt_row(const SpanPlan& plan, const int32_t* clean_lasts, const int32_t* noise_lasts, const int32_t* tokens,
                 const int32_t* sentinels, int32_t* inputs, int32_t* targets) {
  int64_t clean_last = -1, noise_last = -1;
  for (int64_t span = 0; span < plan.num_spans; ++span) {
    const int64_t clean = clean_lasts[span] - clean_last, noise = noise_lasts[span] - noise_last;
    Copy::template copy<kCleanBlock>(inputs, tokens, clean);
    inputs[clean] = sentinels[span];
    targets[0] = sentinels[span];
    Copy::template copy<kNoiseBlock>(targets + 1, tokens + clean, noise);
    inputs += clean + 1;
    targets += noise + 1;
    tokens += clean + noise;
    clean_last = clean_lasts[span];
    noise_last = noise_lasts[span];
  }
}

}  // namespace

void corrupt_spans(const SpanPlan& plan, int64_t rows, const int32_t* tokens, const uint64_t* seeds,
                   const int32_t* sentinels, int32_t* inputs, int32_t* targets) {
  SpanLengths noise_lengths(plan.num_noise, plan.num_spans), clean_lengths(plan.num_clean(), plan.num_spans);
  const int64_t shortest = std::min(plan.num_inputs(), plan.num_targets());
  for (int64_t row = 0; row < rows; ++row) {
    Draws draws(seeds[row]);
    const int32_t* const noise = noise_lengths.draw(draws);
    const int32_t* const clean = clean_lengths.draw(draws);
    // Blocks may reach beyond the row only where the rows behind it have not been written.
    const bool has_slack = (rows - 1 - row) * shortest >= kCleanBlock;
    const auto corrupt = has_slack ? corrupt_row<CopyBlocks> : corrupt_row<CopyExactly>;
    corrupt(plan, clean, noise, tokens, sentinels, inputs, targets);
    tokens += plan.num_tokens;
    inputs += plan.num_inputs();
    targets += plan.num_targets();
  }
}

}  // namespace triarch
