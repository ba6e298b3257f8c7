// Keys that are stored minus their head's centre c, under the Hadamard transform H. The score of a
// query q and the stored key x at position n is (H q) . x + q . R(n) c, R(n) being the rotation.
// Each rotated pair of numbers of q and c adds
//   a cos(n f) + b sin(n f), with a = q0 c0 + q1 c1 and b = q1 c0 - q0 c1
// YaRN multiplies cos and sin of queries and of keys by a factor m. The query q has it, so the keys of
// the second summand are m cos and m sin.
// Numbers that are not rotated add the same to all scores, which softmax ignores. Included by
// instruction_set.inl.

struct CenteredKeys {
    FloatKeys rest;  // the stored keys
    // The second summand as a product: its keys are the cos and sin of each pair at the tile's
    // positions 0, 1, ..., times m; its queries are a and b, rotated by the tile's first position.
    FloatKeys rotations;
    int pairs;
    float factors[MOST_ROWS][LARGEST_HEAD];  // a, then b, of each row
    const double* frequencies;

    CenteredKeys(const Attention& attention, int head, const float* from, int rows)
        : rest(attention, head, from, rows), rotations(2 * attention.pairs, rows),
          pairs(attention.pairs), frequencies(attention.frequencies) {
        const int size = attention.size;
        const float* center = attention.keys.centers + attention.place(head) * size;
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
                rotations.tile.of(place)[pair] = static_cast<float>(rotation.real());
                rotations.tile.of(place)[pairs + pair] = static_cast<float>(rotation.imag());
            }
        }
    }

    void score(const CachedVectors& vectors, size_t place, int first, int tokens, int rows,
               Scores& scores) {
        alignas(64) Scores by_center;
        rest.score(vectors, place, first, tokens, rows, scores);
        rotate_factors(first, rows);
        rotations.score_tile(tokens, rows, by_center);
        for (int row = 0; row < rows; row++)
            for (int token = 0; token < tokens; token++)
                scores[row][token] += by_center[row][token];
    }

    void rotate_factors(int first, int rows) {
        float cos[LARGEST_HEAD / 2], sin[LARGEST_HEAD / 2];
        for (int pair = 0; pair < pairs; pair++) {
            cos[pair] = static_cast<float>(std::cos(first * frequencies[pair]));
            sin[pair] = static_cast<float>(std::sin(first * frequencies[pair]));
        }
        for (int row = 0; row < rows; row++) {
            const float *a = factors[row], *b = factors[row] + pairs;
            float* to = rotations.queries + row * rotations.tile.width;
            for (int pair = 0; pair < pairs; pair++) {
                to[pair] = a[pair] * cos[pair] + b[pair] * sin[pair];
                to[pairs + pair] = b[pair] * cos[pair] - a[pair] * sin[pair];
            }
        }
    }
};
