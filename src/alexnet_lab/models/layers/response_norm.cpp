// Local response normalisation, forward and backward, each in one pass over memory.
//
// A block of pixels is widened to float into a buffer that stays in the processor's cache. There, maps that are
// neighbours lie `step` apart, with zeros between pixels (or towers) that do not see each other, so that a window is
// a sum of shifted squares in either memory layout. The formulas are those of response_norm.py, for beta = 3/4.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bfloat16 {
  uint16_t bits;
};

inline float widen(float value) { return value; }

inline float widen(bfloat16 value) {
  const uint32_t word = uint32_t(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &word, sizeof wide);
  return wide;
}

inline void narrow(float value, float &out) { out = value; }

inline void narrow(float value, bfloat16 &out) {  // to the nearest, ties to even
  uint32_t word;
  std::memcpy(&word, &value, sizeof word);
  const bool no_number = (word & 0x7fffffffu) > 0x7f800000u;
  out.bits = no_number ? 0x7fc0 : uint16_t((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
}

constexpr int64_t LANES = 64;          // pixels of a block where each map is a plane of its own
constexpr int64_t ENOUGH = 2048;       // numbers of a block where the maps of a pixel lie together
constexpr int64_t MOST = 9;            // maps in a window
constexpr int64_t MARGIN = MOST * LANES;  // zeros before and after everything

// Where the numbers of a block are, in memory and in the buffer: `runs` pieces of `length` numbers.
struct Block {
  int64_t runs, length;
  int64_t apart;      // from run to run, in memory
  int64_t pitch;      // from run to run, in the buffer
  int64_t per_group;  // runs after which there is a gap of zeros
  int64_t gap;
  int64_t step;       // from map to map, in the buffer

  int64_t place(int64_t run) const { return MARGIN + run * pitch + run / per_group * gap; }
  int64_t end() const { return place(runs); }
};

template <typename T>
void read(const T *memory, float *buffer, const Block &block) {
  for (int64_t run = 0; run < block.runs; ++run) {
    const T *__restrict from = memory + run * block.apart;
    float *__restrict to = buffer + block.place(run);
    for (int64_t i = 0; i < block.length; ++i) to[i] = widen(from[i]);
  }
}

template <typename T>
void write(const float *buffer, T *memory, const Block &block) {
  for (int64_t run = 0; run < block.runs; ++run) {
    const float *__restrict from = buffer + block.place(run);
    T *__restrict to = memory + run * block.apart;
    for (int64_t i = 0; i < block.length; ++i) narrow(from[i], to[i]);
  }
}

template <int SIZE>
inline float sum(const float *centre, int64_t step) {
  float total = 0;
#pragma GCC unroll 9
  for (int j = -(SIZE / 2); j <= SIZE / 2; ++j) total += centre[j * step];
  return total;
}

template <int SIZE>
inline float sum_of_squares(const float *centre, int64_t step) {
  float total = 0;
#pragma GCC unroll 9
  for (int j = -(SIZE / 2); j <= SIZE / 2; ++j) total += centre[j * step] * centre[j * step];
  return total;
}

struct Norm {
  float alpha, k;
};

template <int SIZE>
void normalise(const float *__restrict x, float *__restrict y, const Block &block, Norm norm) {
  const int64_t end = block.end(), step = block.step;
  for (int64_t i = MARGIN; i < end; ++i) {
    const float root = 1 / std::sqrt(norm.k + norm.alpha * sum_of_squares<SIZE>(x + i, step));
    y[i] = x[i] * (root * std::sqrt(root));
  }
}

// From the gradient of the output, in `slope`, to that of the input, in `out`; `spread` holds zeros in its margins.
template <int SIZE>
void differentiate(const float *__restrict x, float *__restrict slope, float *__restrict spread,
                   float *__restrict out, const Block &block, Norm norm) {
  const int64_t end = block.end(), step = block.step;
  for (int64_t i = MARGIN; i < end; ++i) {
    const float root = 1 / std::sqrt(norm.k + norm.alpha * sum_of_squares<SIZE>(x + i, step));
    slope[i] *= root * std::sqrt(root);             // through the numerator
    spread[i] = slope[i] * x[i] * (root * root);    // what this map's denominator passes on
  }
  const float factor = 2 * 0.75f * norm.alpha;
  for (int64_t i = MARGIN; i < end; ++i) out[i] = slope[i] - factor * x[i] * sum<SIZE>(spread + i, step);
}

struct Maps {
  int64_t images, maps, pixels, groups;
  bool channels_last;
  int64_t size;  // of a window

  int64_t per_group() const { return maps / groups; }
  // Where maps are planes, a block is LANES pixels of all maps; else it is some pixels' (or towers') runs of maps.
  int64_t runs_per_block() const { return std::max<int64_t>(1, ENOUGH / (per_group() + size - 1)); }
  int64_t tiles() const { return (pixels + LANES - 1) / LANES; }
  int64_t runs() const { return images * pixels * groups; }
  int64_t blocks() const {
    return channels_last ? (runs() + runs_per_block() - 1) / runs_per_block() : images * tiles();
  }
  int64_t start(int64_t number) const {
    if (channels_last) return number * runs_per_block() * per_group();
    return number / tiles() * maps * pixels + number % tiles() * LANES;
  }
  Block block(int64_t number) const {
    if (channels_last) {
      const int64_t count = std::min(runs_per_block(), runs() - number * runs_per_block());
      return {count, per_group(), per_group(), per_group(), 1, size - 1, 1};
    }
    const int64_t lanes = std::min(LANES, pixels - number % tiles() * LANES);
    return {maps, lanes, pixels, LANES, per_group(), (size - 1) * LANES, LANES};
  }
  int64_t buffer() const { return block(0).end() + 2 * MARGIN; }
};

template <int SIZE, typename T>
void forward(const T *x, T *y, const Maps &maps, Norm norm, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> wide(maps.buffer()), out(maps.buffer());
#pragma omp for schedule(static)
    for (int64_t number = 0; number < maps.blocks(); ++number) {
      const Block block = maps.block(number);
      read(x + maps.start(number), wide.data(), block);
      normalise<SIZE>(wide.data(), out.data(), block, norm);
      write(out.data(), y + maps.start(number), block);
    }
  }
}

template <int SIZE, typename T>
void backward(const T *x, const T *gradient, T *result, const Maps &maps, Norm norm, int threads) {
#pragma omp parallel num_threads(threads)
  {
    std::vector<float> wide(maps.buffer()), slope(maps.buffer()), spread(maps.buffer()), out(maps.buffer());
#pragma omp for schedule(static)
    for (int64_t number = 0; number < maps.blocks(); ++number) {
      const Block block = maps.block(number);
      read(x + maps.start(number), wide.data(), block);
      read(gradient + maps.start(number), slope.data(), block);
      differentiate<SIZE>(wide.data(), slope.data(), spread.data(), out.data(), block, norm);
      write(out.data(), result + maps.start(number), block);
    }
  }
}

template <typename T>
void forward(const void *x, void *y, const Maps &maps, Norm norm, int threads) {
  const auto from = static_cast<const T *>(x);
  const auto to = static_cast<T *>(y);
  switch (maps.size) {
    case 3: return forward<3>(from, to, maps, norm, threads);
    case 5: return forward<5>(from, to, maps, norm, threads);
    case 7: return forward<7>(from, to, maps, norm, threads);
    case 9: return forward<9>(from, to, maps, norm, threads);
  }
}

template <typename T>
void backward(const void *x, const void *gradient, void *result, const Maps &maps, Norm norm, int threads) {
  const auto from = static_cast<const T *>(x), slope = static_cast<const T *>(gradient);
  const auto to = static_cast<T *>(result);
  switch (maps.size) {
    case 3: return backward<3>(from, slope, to, maps, norm, threads);
    case 5: return backward<5>(from, slope, to, maps, norm, threads);
    case 7: return backward<7>(from, slope, to, maps, norm, threads);
    case 9: return backward<9>(from, slope, to, maps, norm, threads);
  }
}

}  // namespace

// Arrays (images, maps, pixels), or (images, pixels, maps) if `channels_last`, of float or, if `half`, of bfloat16.
extern "C" void lrn_forward(const void *x, void *y, int64_t images, int64_t maps, int64_t pixels, int64_t groups,
                            int64_t size, float alpha, float k, int channels_last, int half, int threads) {
  const Maps shape{images, maps, pixels, groups, channels_last != 0, size};
  half ? forward<bfloat16>(x, y, shape, {alpha, k}, threads) : forward<float>(x, y, shape, {alpha, k}, threads);
}

extern "C" void lrn_backward(const void *x, const void *gradient, void *result, int64_t images, int64_t maps,
                             int64_t pixels, int64_t groups, int64_t size, float alpha, float k, int channels_last,
                             int half, int threads) {
  const Maps shape{images, maps, pixels, groups, channels_last != 0, size};
  half ? backward<bfloat16>(x, gradient, result, shape, {alpha, k}, threads)
       : backward<float>(x, gradient, result, shape, {alpha, k}, threads);
}
