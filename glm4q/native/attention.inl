// Attention for any instruction set: the online softmax of https://arxiv.org/abs/1805.02867, in
// float32. Included by instruction_set.inl.

// A weight below e^-30 of a row's largest one changes no bit of the rounded sums.
constexpr float NEGLIGIBLE = 30;

// The state of a row after some tiles.
struct Softmax {
    float best = -INFINITY;  // largest score
    Parts totals = {};       // sums of weights, lane by lane

    float total() const { return sum_of(totals); }

    // Replaces scores by weights of the visible tokens, and returns the factor that the sums so far
    // must be multiplied by. largest_weight: of the tile; 0 if all its weights are negligible.
    float soften(float* scores, int visible, float& largest_weight) {
        if (visible < TILE) std::fill(scores + visible, scores + TILE, -INFINITY);
        const float most = largest(scores);
        largest_weight = 0;
        if (most < best - NEGLIGIBLE || visible == 0) {
            std::fill_n(scores, TILE, 0.0f);
            return 1;
        }
        float shrink = 1;
        if (most > best) {
            shrink = exponential(best - most);
            best = most;
        }
        Parts sums = {}, lane_largest = {};
        for (int at = 0; at < TILE; at += PARTS) {
            Parts weights = exponential(load_parts(scores + at) - best);
            if (visible < TILE) weights = zero_beyond(weights, visible - at);
            std::memcpy(scores + at, &weights, sizeof(weights));
            sums += weights;
            lane_largest = larger(weights, lane_largest);
        }
        largest_weight = largest_of(lane_largest);
        totals = totals * shrink + sums;
        return shrink;
    }

private:
    // Ignores NaN.
    static float largest(const float* scores) {
        typename V::Floats most = V::fill(-INFINITY);
        for (int at = 0; at < TILE; at += V::LANES) most = V::larger(V::load(scores + at), most);
        return V::largest(most);
    }

    static Parts zero_beyond(Parts weights, int visible) {
        for (int part = 0; part < PARTS; part++)
            if (part >= visible) weights[part] = 0;
        return weights;
    }
};

// Computes one piece, tile by tile: scores of keys, their weights, sums of values.
template <class Keys, class Values>
void attend_by(const Attention& attention, const AttentionPiece& piece) {
    alignas(64) Scores scores;
    Softmax softmax[MOST_ROWS];
    float largest_weights[MOST_ROWS];  // of the current tile
    const int size = attention.size, rows = piece.last - piece.first;
    const size_t row = static_cast<size_t>(piece.head) * attention.rows() + piece.first;
    Keys keys(attention, piece.head, attention.queries + row * size, rows);
    Values values(size, rows);

    const int past = attention.cached(piece.head / attention.kv_heads) - attention.tokens;
    int starts[MOST_ROWS], ends[MOST_ROWS];  // the part of the range that each row sees
    int start = past + attention.tokens, end = 0;
    for (int r = 0; r < rows; r++) {
        const int seen = past + (piece.first + r) % attention.tokens + 1;
        const int range = range_tokens(seen, piece.most);
        starts[r] = static_cast<int>(std::min<int64_t>(
            static_cast<int64_t>(piece.split) * range, seen));
        ends[r] = std::min(starts[r] + range, seen);
        if (starts[r] == ends[r]) continue;
        start = std::min(start, starts[r]);
        end = std::max(end, ends[r]);
    }

    for (int token = start; token < end; token += TILE) {
        const int tokens = std::min(TILE, end - token);
        const size_t place = attention.place(piece.head) * attention.room + token;
        keys.score(attention.keys, place, token, tokens, rows, scores);
        int visible[MOST_ROWS];
        for (int r = 0; r < rows; r++) {
            const int inside = std::min(std::max(ends[r] - token, 0), tokens);
            visible[r] = token < starts[r] ? 0 : inside;
            const float shrink = softmax[r].soften(scores[r], visible[r], largest_weights[r]);
            if (shrink != 1) values.shrink(r, shrink);
        }
        if (any(largest_weights, 0, rows, rows))
            values.mix(attention.values, place, tokens, rows, scores, largest_weights, visible);
    }

    for (int r = 0; r < rows; r++) {
        float* to = attention.mixed + (row + r) * size;
        if (piece.splits > 1) {
            const size_t partial = (static_cast<size_t>(piece.head) * piece.splits + piece.split) *
                                       attention.rows() + piece.first + r;
            to = attention.partials + partial * attention.partial_size();
            to[size] = softmax[r].best;
            to[size + 1] = softmax[r].total();
        }
        values.store(r, piece.splits > 1 ? 1 : 1 / softmax[r].total(), to);
    }
}

void attend(const Attention& attention, const AttentionPiece& piece) {
    auto attend_piece = attention.keys.centers ? attend_by<CenteredKeys<FloatKeys>, FloatValues>
                                               : attend_by<FloatKeys, FloatValues>;
#ifdef GLM4Q_DOTS_PAIRS
    const KVFormat keys = attention.keys.format, values = attention.values.format;
    if (attention.size % V::BYTES == 0) {
        if (keys == KV_BFLOAT16)
            attend_piece = attend_by<BfloatKeys, BfloatValues>;
        else if (keys == KV_INT8)
            attend_piece = values == KV_INT8 ? attend_by<PairKeys, PairValues>
                                             : attend_by<PairKeys, NibbleValues>;
        else if (keys == KV_INT4)
            attend_piece = attention.keys.centers
                               ? attend_by<CenteredKeys<NibbleKeys>, NibbleValues>
                               : attend_by<NibbleKeys, NibbleValues>;
    }
#endif
#ifdef GLM4Q_DOTS_WORDS
    const KVFormat keys = attention.keys.format, values = attention.values.format;
    if (attention.size % V::BYTES == 0) {
        if (keys == KV_INT8 && values == KV_INT8)
            attend_piece = attend_by<WordKeys<Bytes>, WordValues<Bytes>>;
        else if (keys == KV_INT8)
            attend_piece = attend_by<WordKeys<Bytes>, FloatValues>;
#ifdef GLM4Q_BFLOAT16
        else if (keys == KV_BFLOAT16)
            attend_piece = attend_by<WordKeys<Pairs>, WordValues<Pairs>>;
#endif
    }
#endif
    attend_piece(attention, piece);
}

// Merges the partial results of all ranges of a head.
void merge(const Attention& attention, int splits, int head) {
    const int size = attention.size, rows = attention.rows();
    const size_t step = attention.partial_size() * rows;
    for (int row = 0; row < rows; row++) {
        const float* part = attention.partials + attention.partial_size() *
                                (static_cast<size_t>(head) * splits * rows + row);
        float* to = attention.mixed + (static_cast<size_t>(head) * rows + row) * size;
        float best = -INFINITY, total = 0;
        for (int split = 0; split < splits; split++)
            best = std::max(best, part[split * step + size]);
        std::memset(to, 0, size * sizeof(float));
        for (int split = 0; split < splits; split++) {
            const float* from = part + split * step;
            if (from[size + 1] == 0) continue;  // the row may see no token of this range
            const float factor = exponential(from[size] - best);
            total += from[size + 1] * factor;
            for (int at = 0; at < size; at++) to[at] += from[at] * factor;
        }
        for (int at = 0; at < size; at++) to[at] *= 1 / total;
    }
}
