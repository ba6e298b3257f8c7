// Winograd's inner product (1968) of 16-bit codes, for instruction sets that multiply on fewer ports
// than they add. Included by instruction_set.inl.
//
// Two products a * x + b * y are (a + y) * (b + x) - a * b - x * y: one multiplication. The sums of
// a * b of a chunk's codes are the same for each row of activations, and those of x * y the same
// for each output, so both are summed once. All of it is whole numbers of 32 bits, which may wrap
// around meanwhile: what remains is the sum that separate products have, to the last bit.

// Stores what the neighbouring steps of an unpacked chunk add too much, with its sign changed: [span].
template <class Vectors>
inline void cross_words(const uint32_t* words, int steps, int span, uint32_t* to) {
    for (int at = 0; at < span; at += Vectors::LANES) {
        typename Vectors::Ints sum = Vectors::broadcast(0);
        for (int step = 0; step < steps; step += 2) {
            const uint32_t* place = words + step * span + at;
            sum = Vectors::dot_words(sum, Vectors::load(place), Vectors::load(place + span));
        }
        Vectors::store(to + at, Vectors::minus(Vectors::broadcast(0), sum));
    }
}

// Adds the products of R rows of codes and C vectors of unpacked outputs to `acc`: `steps` steps,
// `stride` words from each other. Codes of a row are STEP words from each other, rows ROW words.
template <class Vectors, int R, int C, int STEP = R, int ROW = 1>
inline void multiply_crossed(const uint32_t* words, int steps, int stride, const uint32_t* codes,
                             typename Vectors::Ints (&acc)[R][C]) {
    for (int step = 0; step < steps; step += 2, words += 2 * stride, codes += 2 * STEP) {
        typename Vectors::Ints one[C], other[C];
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) {
            one[c] = Vectors::load(words + c * Vectors::LANES);
            other[c] = Vectors::load(words + stride + c * Vectors::LANES);
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const auto x_one = Vectors::broadcast(static_cast<int32_t>(codes[r * ROW]));
            const auto x_other = Vectors::broadcast(static_cast<int32_t>(codes[r * ROW + STEP]));
            GLM4Q_UNROLL
            for (int c = 0; c < C; c++)
                acc[r][c] = Vectors::dot_crossed(acc[r][c], one[c], other[c], x_one, x_other);
        }
    }
}
