// Blocks of R rows by C vectors in registers, and requests for memory between their products.
// Included by instruction_set.inl.

template <int R, int C, class Number, class Vector>
inline void load_vectors(const Number* from, int stride, Vector (&to)[R][C]) {
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) to[r][c] = V::load(from + r * stride + c * V::LANES);
    }
}

template <int R, int C, class Number, class Vector>
inline void store_vectors(const Vector (&from)[R][C], Number* to, int stride) {
    GLM4Q_UNROLL
    for (int r = 0; r < R; r++) {
        GLM4Q_UNROLL
        for (int c = 0; c < C; c++) V::store(to + r * stride + c * V::LANES, from[r][c]);
    }
}

// Calls function(rows) with `rows`, at most R, as a constant.
template <int R, class Function>
inline void call_with_rows(int rows, const Function& function) {
    if constexpr (R > 1) {
        if (rows < R) return call_with_rows<R - 1>(rows, function);
    }
    function(std::integral_constant<int, R>{});
}

// Prefetches memory that is read next by so many requests, between products: all lines at once would
// stall.
struct Ahead {
    const uint8_t* place;
    size_t step;

    Ahead(const void* from, size_t bytes, size_t requests)
        : place(static_cast<const uint8_t*>(from)), step((bytes + requests - 1) / requests) {}

    // Asks for one line, if a step is not longer.
    void ask() {
        __builtin_prefetch(place, 0, 2);
        place += step;
    }

    void ask_all() {
        for (size_t at = 0; at < step; at += 64) __builtin_prefetch(place + at, 0, 2);
        place += step;
    }
};
