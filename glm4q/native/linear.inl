// The matmul for any instruction set: vectors V of LANES outputs. Included by instruction_set.inl.

// Multiplies the blocks `first` to `last` of rows by the outputs `start` to `stop`. SUMS has room
// for all of these, and NEAR_SUMS if the chunks are not UNPACKED.
template <int BITS, bool BOOK, bool WIDE, bool UNPACKED>
void multiply_span(const Weight& weight, const Activations& x, void* out, Dtype dtype,
                   const Blocks& blocks, int first, int last, int start, int stop) {
    using Codes = Layout<BITS, BOOK, WIDE>;
    using Sum = Dots<WIDE, Codes::SMALL>;
    alignas(64) float sums[UNPACKED ? SUMS : NEAR_SUMS];
    constexpr bool CUT = CUTS && !UNPACKED;
    alignas(64) uint32_t partial[CUT && Sum::WHOLE ? NEAR_SUMS : 1];
    alignas(64) float products[CUT && !Sum::WHOLE ? NEAR_SUMS : 1];
    alignas(64) uint32_t unpacked[UNPACKED ? UNPACKED_WORDS : 1], crossed[UNPACKED_SPAN];
    alignas(64) float zeros[MOST_SPAN + V::LANES];
    uint8_t book[BOOK_SIZE] = {};
    if (BOOK)
        for (int code = 0; code < BOOK_SIZE; code++)
            book[code] = static_cast<uint8_t>(static_cast<int>(weight.book[code]) + Codes::MIDDLE);
    const int above = blocks.start(first), rows = blocks.start(last) - above;
    const int span = (stop - start + V::LANES - 1) / V::LANES * V::LANES;
    const int parts = CUT ? parts_of(x.chunk / x.segment, x.chunk * BITS / 32, rows) : 1;
    std::memset(sums, 0, static_cast<size_t>(rows) * span * sizeof(float));
    for (int input = 0, group = -1; input < weight.inputs; input += x.chunk) {
        if (weight.qzeros && group != input / weight.group)
            unpack_zeros<BITS>(weight, input / weight.group, start, stop, zeros);
        group = input / weight.group;
        for (int part = 0; part < parts; part++) {
            Chunk chunk = chunk_at<BITS>(weight, x, input, part, parts, span);
            chunk.book = V::load_book(book);
            chunk.zeros = weight.qzeros ? zeros : nullptr;
            if (UNPACKED) unpack_chunk<Codes>(chunk, start, stop, unpacked);
            if constexpr (crosses<Codes, UNPACKED>()) {
                cross_words<typename Codes::Vectors>(unpacked, chunk.rows * Codes::STEPS, span,
                                                     crossed);
                chunk.crossed = crossed;
            }
            for (int block = first; block < last; block++) {
                const int top = blocks.start(block), height = blocks.start(block + 1) - top;
                meet_block<Codes, Sum, UNPACKED>(chunk, x, input, part, top, height);
                if (UNPACKED && WIDE) ask_for_next_block<Codes>(chunk, x.chunk, height);
                const int place = (top - above) * span;
                const BlockSums to = {sums + place, partial + place, products + place, span};
                add_rows<Codes, Sum, UNPACKED>(height, chunk, to, start, stop);
            }
        }
    }
    for (int row = 0; row < rows; row++)
        store_floats(sums + row * span, out, dtype,
                     static_cast<size_t>(above + row) * weight.outputs + start, stop - start);
}

template <bool WIDE, bool UNPACKED>
auto span_function(const Weight& weight) {
    return weight.book        ? multiply_span<4, true, WIDE, UNPACKED>
           : weight.bits == 4 ? multiply_span<4, false, WIDE, UNPACKED>
                              : multiply_span<8, false, WIDE, UNPACKED>;
}

void multiply(const Weight& weight, const Activations& x, void* out, Dtype dtype, int start,
              int stop) {
    const Blocks blocks(x.rows, V::BLOCK_ROWS);
    const int at_once = x.rows <= PASS_ROWS ? blocks.count : PASS_ROWS / V::BLOCK_ROWS;
    for (int first = 0; first < blocks.count; first += at_once) {
        const int last = std::min(first + at_once, blocks.count);
        const int rows = blocks.start(last) - blocks.start(first);
        const bool unpack = last - first > V::DIRECT_BLOCKS;
        const int word_rows = x.chunk * weight.bits / 32;
        const bool cut = parts_of(x.chunk / x.segment, word_rows, rows) > 1;
        const int most = cut ? V::CUT_SPAN : word_rows > CROWDED_ROWS ? CROWDED_SPAN : MOST_SPAN;
        const int span =
            unpack ? UNPACKED_SPAN : std::min(NEAR_SUMS / rows / LEAST_SPAN * LEAST_SPAN, most);
        const auto multiply_codes =
            unpack ? (x.wide ? span_function<true, true> : span_function<false, true>)(weight)
                   : (x.wide ? span_function<true, false> : span_function<false, false>)(weight);
        for (int at = start; at < stop; at += span)
            multiply_codes(weight, x, out, dtype, blocks, first, last, at,
                           std::min(at + span, stop));
    }
}
