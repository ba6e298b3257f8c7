// Gram matrices for any instruction set. Included by instruction_set.inl.

constexpr int PANEL_VECTORS = 3;
constexpr int PANEL = PANEL_VECTORS * V::LANES;

// Packs one panel of columns, from `first` on, of x [tokens, columns].
void pack_panel(const uint16_t* x, int tokens, int columns, int first, uint32_t* words) {
    const int count = std::min(PANEL, columns - first);
    for (int token = 0; token < tokens; token += 2, words += PANEL) {
        const uint16_t* low = x + static_cast<size_t>(token) * columns + first;
        const uint16_t* high = low + columns;
        const bool paired = token + 1 < tokens;
        for (int at = 0; at < count; at++)
            words[at] = low[at] | (paired ? static_cast<uint32_t>(high[at]) << 16 : 0);
        for (int at = count; at < PANEL; at++) words[at] = 0;
    }
}

// Adds R rows of sums of one panel to out [R, stride], as far as `rows` and `columns` say.
void add_gram(const uint32_t* left, const uint32_t* right, int pairs, float* out, size_t stride,
              int rows, int columns) {
    constexpr int R = V::GRAM_ROWS;
    typename V::Floats acc[R][PANEL_VECTORS];
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < PANEL_VECTORS; c++) acc[r][c] = V::zero();
    }
    for (int pair = 0; pair < pairs; pair++, left += PANEL, right += PANEL) {
        typename V::Ints words[PANEL_VECTORS];
        GLM4Q_UNROLL
        for (int c = 0; c < PANEL_VECTORS; c++) words[c] = V::load(right + c * V::LANES);
        GLM4Q_UNROLL
        for (int r = 0; r < R; r++) {
            const typename V::Ints word = V::broadcast(static_cast<int32_t>(left[r]));
            GLM4Q_UNROLL
            for (int c = 0; c < PANEL_VECTORS; c++)
                acc[r][c] = V::dot_pair(acc[r][c], word, words[c]);
        }
    }
    for (int r = 0; r < rows; r++) {
        alignas(64) float sums[PANEL];
        for (int c = 0; c < PANEL_VECTORS; c++) V::store(sums + c * V::LANES, acc[r][c]);
        for (int at = 0; at < columns; at++) out[r * stride + at] += sums[at];
    }
}

// Adds the rows of sums before row `last`, in one panel of the right columns.
void gram(const Panels& left, const Panels& right, int panel, int last, const Sums& out) {
    const size_t panel_words = static_cast<size_t>(right.pairs) * PANEL;
    const int column = panel * PANEL, columns = std::min(PANEL, right.columns - column);
    for (int row = 0; row < last; row += V::GRAM_ROWS)
        add_gram(left.words + row / PANEL * panel_words + row % PANEL,
                 right.words + panel * panel_words, right.pairs,
                 out.numbers + row * out.stride + column, out.stride,
                 std::min(V::GRAM_ROWS, last - row), columns);
}
