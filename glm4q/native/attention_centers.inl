// Keys that are kept less their head's centre c, turned by a Hadamard matrix H: of a query q and
// the key x at position n the score is (H q) . x + q . R(n) c. A pair of numbers of q and c adds
//   a cos(n f) + b sin(n f), a = q0 c0 + q1 c1, b = q1 c0 - q0 c1
// and what is not rotated adds the same to all scores, which softmax does not see. Included once by
// each path, inside its namespace, after attention_floats.inl.

struct CenteredKeys {
    FloatKeys rest;
    // The cos and sin of each pair at the tile's places, as keys, and as queries what they are
    // multiplied by: a and b, turned on to the tile's first position.
    FloatKeys turns;
    int pairs;
    float factors[MOST_ROWS][MOST_HEAD_SIZE];  // a, then b, of each row
    const double* frequencies;

    CenteredKeys(const Attention& attention, int head, const float* from, int rows)
        : rest(attention, head, from, rows), turns(2 * attention.pairs, rows),
          pairs(attention.pairs), frequencies(attention.frequencies) {
        const int size = attention.size;
        const float* center = attention.keys.centers + attention.place(head) * size;
        for (int row = 0; row < rows; row++) {
            alignas(64) float query[MOST_HEAD_SIZE];
            std::memcpy(query, from + row * size, size * sizeof(float));
            turn(query, size);  // back: it is its own inverse
            for (int pair = 0; pair < pairs; pair++) {
                const float *q = query + 2 * pair, *c = center + 2 * pair;
                factors[row][pair] = q[0] * c[0] + q[1] * c[1];
                factors[row][pairs + pair] = q[1] * c[0] - q[0] * c[1];
            }
        }
        for (int pair = 0; pair < pairs; pair++) {
            // From place to place by a turn: asking for each would take longer than attention.
            const std::complex<double> step = std::polar(1.0, frequencies[pair]);
            std::complex<double> turned = 1;
            for (int place = 0; place < TILE; place++, turned *= step) {
                turns.tile.of(place)[pair] = static_cast<float>(turned.real());
                turns.tile.of(place)[pairs + pair] = static_cast<float>(turned.imag());
            }
        }
    }

    void score(const Side& side, size_t place, int first, int tokens, int rows, Scores& scores) {
        alignas(64) Scores by_center;
        rest.score(side, place, first, tokens, rows, scores);
        turn_factors(first, rows);
        turns.score_tile(tokens, rows, by_center);
        for (int row = 0; row < rows; row++)
            for (int token = 0; token < tokens; token++)
                scores[row][token] += by_center[row][token];
    }

    void turn_factors(int first, int rows) {
        float cos[MOST_HEAD_SIZE / 2], sin[MOST_HEAD_SIZE / 2];
        for (int pair = 0; pair < pairs; pair++) {
            cos[pair] = static_cast<float>(std::cos(first * frequencies[pair]));
            sin[pair] = static_cast<float>(std::sin(first * frequencies[pair]));
        }
        for (int row = 0; row < rows; row++) {
            const float *a = factors[row], *b = factors[row] + pairs;
            float* to = turns.queries + row * turns.tile.width;
            for (int pair = 0; pair < pairs; pair++) {
                to[pair] = a[pair] * cos[pair] + b[pair] * sin[pair];
                to[pairs + pair] = b[pair] * cos[pair] - a[pair] * sin[pair];
            }
        }
    }
};
