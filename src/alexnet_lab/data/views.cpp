// Views of stored images: crop, mirror, colour and normalisation in one pass, row by row.
//
// The numbers are those of augment.py's other form, bit by bit: ((pixel - mean) + shift) * scale, each step rounded.

#include <algorithm>
#include <cstdint>

namespace {

struct Row {
  const uint8_t *pixels;  // of the stored row
  const float *mean;      // of the view's row, or of its channel
  float shift, scale;
  int64_t before;       // the column of the stored row at which the view starts; negative in the padding
  int64_t first, last;  // the view's columns that lie on the image, before it is mirrored
  int64_t side;
};

template <bool MIRRORED, bool MEAN_IMAGE>
void fill(const Row &row, float *__restrict out) {
  const uint8_t *__restrict pixels = row.pixels;
  const float *__restrict mean = row.mean;
  const int64_t first = MIRRORED ? row.side - row.last : row.first;
  const int64_t last = MIRRORED ? row.side - row.first : row.last, before = row.before;
  const float constant = mean[0], shift = row.shift, scale = row.scale;
  std::fill(out, out + first, 0.0f);
  for (int64_t x = first; x < last; ++x) {
    const float level = pixels[before + (MIRRORED ? row.side - 1 - x : x)];
    out[x] = ((level - (MEAN_IMAGE ? mean[x] : constant)) + shift) * scale;
  }
  std::fill(out + last, out + row.side, 0.0f);
}

}  // namespace

// images (n, channels, stored, stored); top, left, mirror (n,); shift (n, channels) or null; mean (channels, side,
// side) if `mean_image`, else (channels,); scale (channels,); out (n, channels, side, side), 0 in the padding.
extern "C" void take_views(const uint8_t *images, const int64_t *top, const int64_t *left, const uint8_t *mirror,
                           const float *shift, const float *mean, const float *scale, float *out, int64_t n,
                           int64_t channels, int64_t stored, int64_t side, int64_t padding, int mean_image,
                           int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const int64_t above = top[i] - padding, before = left[i] - padding;
    const int64_t first = std::clamp<int64_t>(-before, 0, side), last = std::clamp<int64_t>(stored - before, first, side);
    for (int64_t c = 0; c < channels; ++c) {
      const float *means = mean + (mean_image ? c * side * side : c);
      for (int64_t y = 0; y < side; ++y) {
        float *to = out + ((i * channels + c) * side + y) * side;
        const int64_t line = above + y;
        if (line < 0 || line >= stored) {
          std::fill(to, to + side, 0.0f);
          continue;
        }
        const Row row{images + ((i * channels + c) * stored + line) * stored, means + (mean_image ? y * side : 0),
                      shift ? shift[i * channels + c] : 0.0f, scale[c], before, first, last, side};
        if (mean_image)
          mirror[i] ? fill<true, true>(row, to) : fill<false, true>(row, to);
        else
          mirror[i] ? fill<true, false>(row, to) : fill<false, false>(row, to);
      }
    }
  }
}
