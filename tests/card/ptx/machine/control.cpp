// Branches, barriers, and what lanes of a warp tell each other.
#include <algorithm>

#include "lanes.h"

namespace {

void need_members(Warp& warp, uint32_t mask, uint32_t members) {
    if ((members & mask) != members)
        throw Fault{members & ~warp.alive ? "lanes are called that have ended" : "a warp is called together while it is parted"};
}

uint32_t ballot(const bool* predicate, uint32_t mask) {
    uint32_t lanes = 0;
    for (int lane = 0; lane < LANES; ++lane) lanes |= uint32_t(predicate[lane]) << lane;
    return lanes & mask;
}

// shfl: d, a, b, c, members. The manual's formulas, with the segment's mask in c.
template <char KIND>
void shuffle(Warp& warp, const Line& line, uint32_t mask) {
    const uint32_t* from = warp.row<uint32_t>(line.operand[1]);
    const uint32_t* by = warp.row<uint32_t>(line.operand[2]);
    const uint32_t* clamp = warp.row<uint32_t>(line.operand[3]);
    const uint32_t* members = warp.row<uint32_t>(line.operand[4]);
    uint32_t moved[LANES];
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        need_members(warp, mask, members[lane]);
        const int b = by[lane] & 31, c = clamp[lane] & 31, segment = clamp[lane] >> 8 & 31;
        const int most = (lane & segment) | (c & ~segment), least = lane & segment;
        int other = KIND == 'u' ? lane - b : KIND == 'd' ? lane + b : KIND == 'b' ? lane ^ b : least | (b & ~segment);
        const bool inside = KIND == 'u' ? other >= most : other <= most;
        if (!inside) other = lane;
        if (!(mask >> other & 1)) throw Fault{"shfl reads lane " + std::to_string(other) + ", which is not there"};
        moved[lane] = from[other];
    }
    for (int lane = 0; lane < LANES; ++lane)
        if (mask >> lane & 1) warp.row<uint32_t>(line.operand[0])[lane] = moved[lane];
}

template <class T, class F>
void reduce(Warp& warp, const Line& line, uint32_t mask, F join) {  // d, a, members
    const T* from = warp.row<T>(line.operand[1]);
    const uint32_t members = warp.row<uint32_t>(line.operand[2])[std::countr_zero(mask)];
    need_members(warp, mask, members);
    T all = from[std::countr_zero(members)];
    for (int lane = std::countr_zero(members) + 1; lane < LANES; ++lane)
        if (members >> lane & 1) all = join(all, from[lane]);
    for (int lane = 0; lane < LANES; ++lane)
        if (members >> lane & 1) warp.row<T>(line.operand[0])[lane] = all;
}

void vote_ballot(Warp& warp, const Line& line, uint32_t mask) {  // d, predicate, members
    const uint32_t members = warp.row<uint32_t>(line.operand[2])[std::countr_zero(mask)];
    need_members(warp, mask, members);
    const uint32_t lanes = ballot(warp.row<bool>(line.operand[1]), members);
    for (int lane = 0; lane < LANES; ++lane)
        if (mask >> lane & 1) warp.row<uint32_t>(line.operand[0])[lane] = lanes;
}

template <bool ANY>
void vote(Warp& warp, const Line& line, uint32_t mask) {
    const uint32_t members = warp.row<uint32_t>(line.operand[2])[std::countr_zero(mask)];
    need_members(warp, mask, members);
    const uint32_t lanes = ballot(warp.row<bool>(line.operand[1]), members);
    for (int lane = 0; lane < LANES; ++lane)
        if (mask >> lane & 1) warp.row<bool>(line.operand[0])[lane] = ANY ? lanes != 0 : lanes == members;
}

// `mask` holds the lanes whose guard is true: they go, the others of the group stay.
void branch(Warp& warp, const Line& line, uint32_t mask) {
    close_window(warp);
    const uint32_t stay = warp.mask & ~mask;
    if (!mask) return;
    if (stay) warp.waiting.push_back({warp.pc + 1, stay});
    warp.mask = mask;
    warp.pc = line.target;
    warp.branched = true;
}

void leave(Warp& warp, const Line&, uint32_t mask) {
    warp.alive &= ~mask;
    warp.mask &= ~mask;
}

void barrier(Warp& warp, const Line&, uint32_t mask) {
    if (mask != warp.alive) throw Fault{"a barrier is met by a part of a warp"};
    close_window(warp);
    ++warp.syncs;
    warp.at_barrier = true;
}

void warp_barrier(Warp& warp, const Line& line, uint32_t mask) {
    need_members(warp, mask, warp.row<uint32_t>(line.operand[0])[std::countr_zero(mask)]);
    ++warp.syncs;
}

template <size_t N>
Opcode opcode(const char* name, Handler handler, const int8_t (&bytes)[N]) {
    Opcode result{name, handler, {}};
    for (size_t i = 0; i < OPERANDS; ++i) result.bytes[i] = i < N ? bytes[i] : -1;
    return result;
}

}  // namespace

void add_control(std::vector<Opcode>& all) {
    all.push_back({"bra", branch, {}});
    all.push_back({"ret", leave, {}});
    all.push_back({"exit", leave, {}});
    all.push_back({"bar.sync", barrier, {}});
    all.push_back(opcode("bar.warp.sync", warp_barrier, {4}));
    all.push_back(opcode("shfl.sync.bfly.b32", shuffle<'b'>, {4, 4, 4, 4, 4}));
    all.push_back(opcode("shfl.sync.idx.b32", shuffle<'i'>, {4, 4, 4, 4, 4}));
    all.push_back(opcode("shfl.sync.up.b32", shuffle<'u'>, {4, 4, 4, 4, 4}));
    all.push_back(opcode("shfl.sync.down.b32", shuffle<'d'>, {4, 4, 4, 4, 4}));
    all.push_back(opcode("vote.sync.ballot.b32", vote_ballot, {4, 1, 4}));
    all.push_back(opcode("vote.sync.any.pred", vote<true>, {1, 1, 4}));
    all.push_back(opcode("vote.sync.all.pred", vote<false>, {1, 1, 4}));
    using U = uint32_t;
    using S = int32_t;
    all.push_back(opcode("redux.sync.max.s32", [](Warp& w, const Line& l, U m) { reduce<S>(w, l, m, [](S a, S b) { return std::max(a, b); }); }, {4, 4, 4}));
    all.push_back(opcode("redux.sync.min.s32", [](Warp& w, const Line& l, U m) { reduce<S>(w, l, m, [](S a, S b) { return std::min(a, b); }); }, {4, 4, 4}));
    all.push_back(opcode("redux.sync.add.s32", [](Warp& w, const Line& l, U m) { reduce<U>(w, l, m, [](U a, U b) { return a + b; }); }, {4, 4, 4}));
    all.push_back(opcode("redux.sync.max.u32", [](Warp& w, const Line& l, U m) { reduce<U>(w, l, m, [](U a, U b) { return std::max(a, b); }); }, {4, 4, 4}));
    all.push_back(opcode("redux.sync.or.b32", [](Warp& w, const Line& l, U m) { reduce<U>(w, l, m, [](U a, U b) { return a | b; }); }, {4, 4, 4}));
}
