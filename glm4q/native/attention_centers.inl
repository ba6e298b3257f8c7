// Keys that are kept less their head's centre c, turned by a Hadamard matrix H: of a query q and the
// key at position n the score is (H q) . x + q . R(n) c. A pair of numbers of q and c adds
//   (q0 c0 + q1 c1) cos(n f) + (q1 c0 - q0 c1) sin(n f)
// and what is not rotated adds the same to all scores, which softmax does not see. Included once by
// each path, inside its namespace, after attention_floats.inl.

struct CenteredKeys {
    FloatKeys rest;
    FloatKeys turns;  // cos and sin of each pair at each position, by what they are multiplied by
    const double* frequencies;
    int pairs;
    double steps[2][MOST_HEAD_SIZE / 2];  // cos and sin of a step of one position

    CenteredKeys(const Attention& attention, int head, const float* from, int rows)
        : rest(attention, head, from, rows), turns(2 * attention.pairs),
          frequencies(attention.frequencies), pairs(attention.pairs) {
        const int size = attention.size;
        const float* center = attention.keys.centers + static_cast<size_t>(head) * size;
        for (int row = 0; row < rows; row++) {
            alignas(64) float query[MOST_HEAD_SIZE];
            std::memcpy(query, from + row * size, size * sizeof(float));
            turn(query, size);  // back: it is its own inverse
            float* by = turns.queries + row * turns.tile.width;
            for (int pair = 0; pair < pairs; pair++) {
                const float *q = query + 2 * pair, *c = center + 2 * pair;
                by[pair] = q[0] * c[0] + q[1] * c[1];
                by[pairs + pair] = q[1] * c[0] - q[0] * c[1];
            }
        }
        for (int pair = 0; pair < pairs; pair++) {
            steps[0][pair] = std::cos(frequencies[pair]);
            steps[1][pair] = std::sin(frequencies[pair]);
        }
    }

    void score(const Side& side, size_t place, int first, int tokens, int rows, Scores& scores) {
        alignas(64) Scores by_center;
        rest.score(side, place, first, tokens, rows, scores);
        turn_to(first, tokens);
        turns.score_tile(tokens, rows, by_center);
        for (int row = 0; row < rows; row++)
            for (int token = 0; token < tokens; token++) scores[row][token] += by_center[row][token];
    }

    // Exactly at the first position, from there step by step.
    void turn_to(int first, int tokens) {
        double cos[MOST_HEAD_SIZE / 2], sin[MOST_HEAD_SIZE / 2];
        for (int pair = 0; pair < pairs; pair++) {
            cos[pair] = std::cos(first * frequencies[pair]);
            sin[pair] = std::sin(first * frequencies[pair]);
        }
        for (int token = 0; token < tokens; token++) {
            float* to = turns.tile.of(token);
            for (int pair = 0; pair < pairs; pair++) {
                to[pair] = static_cast<float>(cos[pair]);
                to[pairs + pair] = static_cast<float>(sin[pair]);
                const double turned = cos[pair] * steps[0][pair] - sin[pair] * steps[1][pair];
                sin[pair] = sin[pair] * steps[0][pair] + cos[pair] * steps[1][pair];
                cos[pair] = turned;
            }
        }
    }
};
