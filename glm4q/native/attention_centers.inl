// Keys that are stored minus their head's centre c, under the Hadamard transform H. The score of a
// query q and the stored key x at position n is (H q) . x + q . R(n) c, R(n) being the rotation.
// Each rotated pair of numbers of q and c adds
//   a cos(n f) + b sin(n f), with a = q0 c0 + q1 c1 and b = q1 c0 - q0 c1
// YaRN multiplies cos and sin of queries and of keys by a factor m. The query q has it, so the keys of
// the second summand are m cos and m sin.
// Numbers that are not rotated add the same to all scores, which softmax ignores. Included by
// instruction_set.inl.

// Keys: those that score what is stored.
template <class Keys>
struct CenteredKeys {
    static constexpr int TILES = LEAST_RANGE / TILE;
    Keys rest;
    // The second summand as a product: its keys are the cos and sin of each pair at the tile's
    // positions 0, 1, ..., times m; its queries are a and b, rotated by the tile's first position.
    LaneProducts rotations;
    int pairs;
    float factors[MOST_ROWS][LARGEST_HEAD];  // a, then b, of each row
    const double* frequencies;
    // Rotations by whole tiles, and by the last multiple of LEAST_RANGE. Each is computed from its own
    // position, so that a tile's is the same wherever a range begins.
    std::complex<double> by_tiles[TILES][LARGEST_HEAD / 2], by_range[LARGEST_HEAD / 2];
    int range = -1;

    CenteredKeys(const Attention& attention, int head, const float* from, int rows)
        : rest(attention, head, from, rows), pairs(attention.pairs),
          frequencies(attention.frequencies) {
        const int size = attention.size;
        const float* center = attention.keys.centers + attention.place(head) * size;
        rotations.width = 2 * pairs;
        for (int row = 0; row < rows; row++) {
            alignas(64) float query[LARGEST_HEAD];
            std::memcpy(query, from + row * size, size * sizeof(float));
            hadamard_transform(query, size);  // the transform is its own inverse
            for (int pair = 0; pair < pairs; pair++) {
                const float *q = query + 2 * pair, *c = center + 2 * pair;
                factors[row][pair] = q[0] * c[0] + q[1] * c[1];
                factors[row][pairs + pair] = q[1] * c[0] - q[0] * c[1];
            }
        }
        for (int pair = 0; pair < pairs; pair++) {
            // A multiplication for each position: calls of cos and sin would take longer than the
            // attention itself.
            const std::complex<double> step = std::polar(1.0, frequencies[pair]);
            std::complex<double> rotation = attention.attention_factor;
            for (int place = 0; place < TILE; place++, rotation *= step) {
                rotations.keys[pair * TILE + place] = static_cast<float>(rotation.real());
                rotations.keys[(pairs + pair) * TILE + place] =
                    static_cast<float>(rotation.imag());
            }
            for (int tile = 0; tile < TILES; tile++)
                by_tiles[tile][pair] = std::polar(1.0, tile * TILE * frequencies[pair]);
        }
    }

    void score(const CachedVectors& vectors, size_t place, int first, int tokens, int rows,
               Scores& scores) {
        rest.score(vectors, place, first, tokens, rows, scores);
        rotate_factors(first, rows);
        rotations.add(tokens, rows, scores);
    }

    void rotate_factors(int first, int rows) {
        if (range != first / LEAST_RANGE) {
            range = first / LEAST_RANGE;
            for (int pair = 0; pair < pairs; pair++)
                by_range[pair] = std::polar(1.0, range * LEAST_RANGE * frequencies[pair]);
        }
        const int tile = first % LEAST_RANGE / TILE;
        float cos[LARGEST_HEAD / 2], sin[LARGEST_HEAD / 2];
        for (int pair = 0; pair < pairs; pair++) {
            const std::complex<double> rotation = by_range[pair] * by_tiles[tile][pair];
            cos[pair] = static_cast<float>(rotation.real());
            sin[pair] = static_cast<float>(rotation.imag());
        }
        for (int row = 0; row < rows; row++) {
            const float *a = factors[row], *b = factors[row] + pairs;
            float* to = rotations.queries + row * rotations.width;
            for (int pair = 0; pair < pairs; pair++) {
                to[pair] = a[pair] * cos[pair] + b[pair] * sin[pair];
                to[pairs + pair] = b[pair] * cos[pair] - a[pair] * sin[pair];
            }
        }
    }
};
