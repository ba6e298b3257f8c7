// The blocks of GPTQ and of coordinate descent for any instruction set: PARTS rows side by side.
// Included by instruction_set.inl.

// Up to PARTS rows, one input after the other.
using Strip = Parts[LARGEST_BLOCK];

// Loads `count` columns of `rows` rows, which are `stride` numbers from each other.
inline void load_strip(const float* from, size_t stride, int rows, int count, Strip& strip) {
    for (int at = 0; at < count; at++) {
        strip[at] = fill(0);
        for (int row = 0; row < rows; row++) strip[at][row] = from[row * stride + at];
    }
}

inline void store_strip(const Strip& strip, int rows, int count, float* to, size_t stride) {
    for (int row = 0; row < rows; row++)
        for (int at = 0; at < count; at++) to[row * stride + at] = strip[at][row];
}

void compensate(const Compensation& block, int first, int last) {
    const int rows = last - first, count = block.last - block.first;
    const float largest = static_cast<float>((1 << block.bits) - 1);
    const size_t place = static_cast<size_t>(first) * block.inputs + block.first;
    Strip left, errors;
    load_strip(block.left + place, block.inputs, rows, count, left);
    load_strip(block.rows + place, block.inputs, rows, count, errors);
    for (int at = 0; at < count; at++) {
        const float* root = block.root + static_cast<size_t>(block.first + at) * block.inputs;
        const int group = block.group[block.first + at];
        Parts scale, zero;
        for (int row = 0; row < PARTS; row++) {
            const size_t grid = static_cast<size_t>(first + std::min(row, rows - 1));
            scale[row] = from_float16(block.scales[grid * block.groups + group]);
            zero[row] = block.zeros[grid * block.groups + group];
        }
        const Parts code =
            within(nearest(left[at] / scale) + zero, fill(0), fill(largest));
        const Parts rounded = (code - zero) * scale;
        left[at] -= rounded;
        errors[at] -= rounded;
        for (int next = at + 1; next < count; next++)
            left[next] += root[block.first + next] * errors[at];
        for (int row = 0; row < rows; row++)
            block.codes[place + static_cast<size_t>(row) * block.inputs + at] =
                static_cast<uint8_t>(code[row]);
    }
    store_strip(left, rows, count, block.left + place, block.inputs);
    store_strip(errors, rows, count, block.errors + static_cast<size_t>(first) * count, count);
}

// Replaces each row's scale by the one of least error, if that is better even after it is rounded
// to float16, and updates the slope.
inline void rescale(const Descent& block, int count, const Strip& codes, Parts& scale,
                    Strip& slope) {
    Strip product = {};  // the block of the Hessian times the codes
    Parts curvature = {}, along = {};
    for (int from = 0; from < count; from++) {
        const float* row = block.hessian + static_cast<size_t>(block.first + from) * block.inputs;
        for (int at = 0; at < count; at++) product[at] += row[block.first + at] * codes[from];
    }
    for (int at = 0; at < count; at++) {
        curvature += codes[at] * product[at];
        along += codes[at] * slope[at];
    }
    const Parts wanted = scale + along / larger(curvature, fill(0x1p-126f));
    const Parts change = half_scale(wanted) - scale;
    const Parts gain = 2 * change * along - change * change * curvature;
    const Parts step = gain > 0 ? change : fill(0);
    scale += step;
    for (int at = 0; at < count; at++) slope[at] -= product[at] * step;
}

void descend(const Descent& block, int first, int last) {
    const int rows = last - first, count = block.last - block.first;
    const int group = block.first / (block.inputs / block.groups);
    const size_t place = static_cast<size_t>(first) * block.inputs + block.first;
    const float largest = static_cast<float>((1 << block.bits) - 1);
    Strip codes, slope, change;
    load_strip(block.centered + place, block.inputs, rows, count, codes);
    load_strip(block.slope + place, block.inputs, rows, count, slope);
    Parts scale, zero;
    for (int row = 0; row < PARTS; row++) {
        const size_t grid = static_cast<size_t>(first + std::min(row, rows - 1)) * block.groups;
        scale[row] = block.scales[grid + group];
        zero[row] = block.zeros[grid + group];
    }
    for (int at = 0; at < count; at++) change[at] = -codes[at] * scale;
    if (block.rescales) rescale(block, count, codes, scale, slope);
    for (int at = 0; at < count; at++) {
        const float* hessian = block.hessian + static_cast<size_t>(block.first + at) * block.inputs;
        const Parts wanted = codes[at] + slope[at] / (scale * hessian[block.first + at]);
        const Parts code = within(nearest(wanted), -zero, largest - zero);
        const Parts moved = (code - codes[at]) * scale;
        codes[at] = code;
        change[at] += code * scale;
        for (int next = at + 1; next < count; next++)
            slope[next] -= hessian[block.first + next] * moved;
    }
    store_strip(codes, rows, count, block.centered + place, block.inputs);
    store_strip(change, rows, count, block.change + static_cast<size_t>(first) * count, count);
    for (int row = 0; row < rows; row++)
        block.scales[static_cast<size_t>(first + row) * block.groups + group] = scale[row];
}

// Subtracts one row's terms from VECTORS vectors of numbers.
template <int VECTORS>
inline void subtract_terms(const Subtraction& sums, const Terms& terms, int row, int column) {
    float* out = sums.out + static_cast<size_t>(row) * sums.columns + column;
    Parts left[VECTORS];
    for (int at = 0; at < VECTORS; at++) left[at] = load_parts(out + at * PARTS);
    for (int term = terms.starts[row]; term < terms.starts[row + 1]; term++) {
        const float* matrix =
            sums.matrix + static_cast<size_t>(terms.places[term]) * sums.columns + column;
        for (int at = 0; at < VECTORS; at++)
            left[at] -= terms.values[term] * load_parts(matrix + at * PARTS);
    }
    for (int at = 0; at < VECTORS; at++)
        std::memcpy(out + at * PARTS, &left[at], sizeof(Parts));
}

// Columns `first` to `last` of all rows.
void subtract(const Subtraction& sums, const Terms& terms, int first, int last) {
    constexpr int VECTORS = 8;
    for (int row = 0; row < sums.rows; row++) {
        if (terms.starts[row] == terms.starts[row + 1]) continue;
        int column = first;
        for (; column + VECTORS * PARTS <= last; column += VECTORS * PARTS)
            subtract_terms<VECTORS>(sums, terms, row, column);
        for (; column + PARTS <= last; column += PARTS) subtract_terms<1>(sums, terms, row, column);
        for (int term = terms.starts[row]; term < terms.starts[row + 1]; term++) {
            const float* matrix =
                sums.matrix + static_cast<size_t>(terms.places[term]) * sums.columns;
            float* out = sums.out + static_cast<size_t>(row) * sums.columns;
            for (int at = column; at < last; at++) out[at] -= terms.values[term] * matrix[at];
        }
    }
}
