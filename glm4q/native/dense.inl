// Products by bfloat16 weights, which are widened in registers. Included by instruction_set.inl.

constexpr int DENSE_AHEAD = 4096;  // numbers between a weight's prefetch and its use
constexpr int OUTPUTS_AHEAD = 8;
constexpr int FEW_ROWS = 8;  // whose sums have the same bits as if each row were alone

// Computes the products of four outputs and R rows of activations.
template <int R>
inline void multiply_four(const uint16_t* const (&weight)[4], int inputs, const float* x,
                          float (&sums)[R][4]) {
    constexpr int STEP = 2 * V::LANES;
    typename V::Floats acc[R][4];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) acc[r][n] = V::zero();
    }
    int input = 0;
    for (; input + STEP <= inputs; input += STEP) {
        typename V::Floats even[4], odd[4];
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) {
            __builtin_prefetch(weight[n] + input + DENSE_AHEAD, 0, 2);
            even[n] = V::even_bfloat16(weight[n] + input);
            odd[n] = V::odd_bfloat16(weight[n] + input);
        }
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const float* place = x + static_cast<size_t>(r) * inputs + input;
            const typename V::Floats x_even = V::load(place), x_odd = V::load(place + V::LANES);
            GLM4Q_UNROLL
            for (int n = 0; n < 4; n++) {
                acc[r][n] = V::multiply_add(even[n], x_even, acc[r][n]);
                acc[r][n] = V::multiply_add(odd[n], x_odd, acc[r][n]);
            }
        }
    }
    for (int r = 0; r < R; r++, x += inputs) {
        V::store_sums(sums[r], acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
        for (int at = input; at < inputs; at++)
            for (int n = 0; n < 4; n++) sums[r][n] += x[at] * from_bfloat16(weight[n][at]);
    }
}

// A strip of four outputs is widened to floats once for all rows.
constexpr int STRIP = 1024;
using WideOutputs = float[4 * STRIP];

// Widens `count` inputs of four outputs: the even ones of each 2 * LANES, then the odd ones.
inline void widen_strip(const uint16_t* const (&four)[4], int first, int count, WideOutputs& strip) {
    for (int n = 0; n < 4; n++) {
        const uint16_t* from = four[n] + first;
        for (int at = 0; at < count; at += 2 * V::LANES) {
            V::store(strip + n * STRIP + at, V::even_bfloat16(from + at));
            V::store(strip + n * STRIP + at + V::LANES, V::odd_bfloat16(from + at));
        }
    }
}

// Requests for four outputs that are met soon, while so many blocks of rows meet these. The next four
// would come too late where rows are few and inputs are few.
inline Ahead next_outputs(const uint16_t* weight, int inputs, int blocks) {
    const size_t vectors = static_cast<size_t>((inputs + V::LANES - 1) / V::LANES);
    return Ahead(weight + static_cast<size_t>(OUTPUTS_AHEAD) * inputs, sizeof(uint16_t) * 4 * inputs,
                 vectors * blocks);
}

// Adds the products of R rows by a strip of `count` inputs.
template <int R>
inline void multiply_strip(const WideOutputs& strip, int count, const float* x, int inputs,
                           Ahead& ahead, typename V::Floats (&acc)[R][4]) {
    for (int at = 0; at < count; at += V::LANES) {
        ahead.ask();
        typename V::Floats numbers[R];
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) numbers[r] = V::load(x + static_cast<size_t>(r) * inputs + at);
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) {
            const typename V::Floats weight = V::load(strip + n * STRIP + at);
            GLM4Q_UNROLL
            for (int r = 0; r < R; r++) acc[r][n] = V::multiply_add(weight, numbers[r], acc[r][n]);
        }
    }
}

template <int R = V::HEAD_ROWS>
inline void multiply_dense_rows(int rows, const uint16_t* const (&weight)[4], const DenseRows& x,
                                int row, void* out, Dtype dtype, int at, int count) {
    if constexpr (R > 1) {
        if (rows < R)
            return multiply_dense_rows<R - 1>(rows, weight, x, row, out, dtype, at, count);
    }
    float sums[R][4];
    multiply_four<R>(weight, x.inputs, x.numbers + static_cast<size_t>(row) * x.inputs, sums);
    for (int r = 0; r < R; r++)
        store_floats(sums[r], out, dtype, static_cast<size_t>(row + r) * x.outputs + at, count);
}

// Multiplies a few rows by four outputs [rows, 4]. The sums of each row are those that `multiply_four`
// makes, to the bit: lanes are added to each other at the end alone.
inline void multiply_few_by_strips(const uint16_t* const (&four)[4], const DenseRows& x,
                                   float (*sums)[4]) {
    constexpr int STEP = 2 * V::LANES;
    alignas(64) WideOutputs strip;
    alignas(64) float lanes[FEW_ROWS][4 * V::LANES] = {};
    const Blocks blocks(x.rows, V::DENSE_ROWS);
    const int whole = x.inputs / STEP * STEP;
    Ahead ahead = next_outputs(four[0], x.inputs, blocks.count);
    for (int first = 0; first < whole; first += STRIP) {
        const int count = std::min(STRIP, whole - first);
        widen_strip(four, first, count, strip);
        for (int block = 0; block < blocks.count; block++) {
            const int row = blocks.start(block);
            const float* from = x.numbers + static_cast<size_t>(row) * x.inputs + first;
            call_with_rows<V::DENSE_ROWS>(blocks.start(block + 1) - row, [&](auto height) {
                constexpr int R = decltype(height)::value;
                typename V::Floats acc[R][4];
                load_vectors<R, 4>(lanes[row], 4 * V::LANES, acc);
                multiply_strip<R>(strip, count, from, x.inputs, ahead, acc);
                store_vectors(acc, lanes[row], 4 * V::LANES);
            });
        }
    }
    for (int row = 0; row < x.rows; row++) {
        const float* four_sums = lanes[row];
        V::store_sums(sums[row], V::load(four_sums), V::load(four_sums + V::LANES),
                      V::load(four_sums + 2 * V::LANES), V::load(four_sums + 3 * V::LANES));
        const float* numbers = x.numbers + static_cast<size_t>(row) * x.inputs;
        for (int at = whole; at < x.inputs; at++)
            for (int n = 0; n < 4; n++) sums[row][n] += numbers[at] * from_bfloat16(four[n][at]);
    }
}

void multiply_few_rows(const uint16_t* weight, const DenseRows& x, void* out, Dtype dtype, int start,
                       int stop) {
    for (int at = start; at < stop; at += 4) {
        const int count = std::min(4, stop - at);
        const uint16_t* four[4];
        for (int n = 0; n < 4; n++)
            four[n] = weight + static_cast<size_t>(at + std::min(n, count - 1)) * x.inputs;
        if (x.rows > V::MOST_WIDENING_ROWS) {
            float sums[FEW_ROWS][4];
            multiply_few_by_strips(four, x, sums);
            for (int row = 0; row < x.rows; row++)
                store_floats(sums[row], out, dtype, static_cast<size_t>(row) * x.outputs + at,
                             count);
            continue;
        }
        for (int row = 0; row < x.rows; row += V::HEAD_ROWS)
            multiply_dense_rows(std::min(V::HEAD_ROWS, x.rows - row), four, x, row, out, dtype, at,
                                count);
    }
}

// Adds the products of R rows by a strip to sums [R, 4].
template <int R>
inline void add_strip(const WideOutputs& strip, int count, const float* x, int inputs,
                      Ahead& ahead, float (*sums)[4]) {
    typename V::Floats acc[R][4];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int n = 0; n < 4; n++) acc[r][n] = V::zero();
    }
    multiply_strip<R>(strip, count, x, inputs, ahead, acc);
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        float four[4];
        V::store_sums(four, acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
        for (int n = 0; n < 4; n++) sums[r][n] += four[n];
    }
}

// Adds the products of all rows by four outputs to sums [rows, 4].
inline void add_four_outputs(const uint16_t* const (&four)[4], const DenseRows& x,
                             float (*sums)[4]) {
    constexpr int R = V::DENSE_ROWS, STEP = 2 * V::LANES;
    alignas(64) WideOutputs strip;
    const int whole = x.inputs / STEP * STEP;
    Ahead ahead = next_outputs(four[0], x.inputs, x.rows / R + x.rows % R);
    for (int first = 0; first < whole; first += STRIP) {
        const int count = std::min(STRIP, whole - first);
        widen_strip(four, first, count, strip);
        int row = 0;
        const float* from = x.numbers + first;
        for (; row + R <= x.rows; row += R)
            add_strip<R>(strip, count, from + static_cast<size_t>(row) * x.inputs, x.inputs, ahead,
                         sums + row);
        for (; row < x.rows; row++)
            add_strip<1>(strip, count, from + static_cast<size_t>(row) * x.inputs, x.inputs, ahead,
                         sums + row);
    }
    for (int row = 0; row < x.rows; row++)
        for (int at = whole; at < x.inputs; at++)
            for (int n = 0; n < 4; n++)
                sums[row][n] += x.numbers[static_cast<size_t>(row) * x.inputs + at] *
                                from_bfloat16(four[n][at]);
}

void multiply_dense(const uint16_t* weight, const DenseRows& x, void* out, Dtype dtype, int start,
                    int stop) {
    if (x.rows <= FEW_ROWS) return multiply_few_rows(weight, x, out, dtype, start, stop);
    for (int at = start; at < stop; at += 4) {
        const int count = std::min(4, stop - at);
        const uint16_t* four[4];
        for (int n = 0; n < 4; n++)
            four[n] = weight + static_cast<size_t>(at + std::min(n, count - 1)) * x.inputs;
        float sums[LARGEST_DENSE_ROWS][4] = {};
        add_four_outputs(four, x, sums);
        for (int row = 0; row < x.rows; row++)
            store_floats(sums[row], out, dtype, static_cast<size_t>(row) * x.outputs + at, count);
    }
}
