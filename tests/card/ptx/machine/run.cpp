// Runs blocks of a launch one after another; of a block each warp up to its next barrier in turn.
//
// Lanes of a warp that part run group by group, those furthest behind first, and join where their
// places meet again.
#include <algorithm>
#include <cstdlib>

#include "machine.h"

extern bool noisy;

const std::vector<Opcode>& opcodes() {
    static const std::vector<Opcode> all = [] {
        std::vector<Opcode> all;
        add_arithmetic(all), add_floats(all), add_conversions(all);
        add_memory(all), add_shared(all), add_matrices(all), add_control(all);
        return all;
    }();
    return all;
}

namespace {

constexpr int64_t MOST_STEPS = 1ll << 28;  // of a warp: a loop without end is an error

// The lanes furthest behind become the running group; lanes at the same place join it.
void choose_group(Warp& warp) {
    if (warp.mask) warp.waiting.push_back({warp.pc, warp.mask});
    warp.mask = 0;
    if (warp.waiting.empty()) return;
    warp.pc = std::min_element(warp.waiting.begin(), warp.waiting.end(), [](auto& a, auto& b) { return a.pc < b.pc; })->pc;
    std::erase_if(warp.waiting, [&](const Warp::Waiting& group) {
        if (group.pc != warp.pc) return false;
        warp.mask |= group.mask;
        return true;
    });
}

uint32_t guarded(Warp& warp, const Line& line) {
    if (line.predicate < 0) return warp.mask;
    const uint8_t* row = warp.row<uint8_t>(line.predicate);
    uint32_t lanes = 0;
    for (int i = 0; i < LANES / 8; ++i) {
        uint64_t eight;
        std::memcpy(&eight, row + 8 * i, 8);
        lanes |= uint32_t((eight & 0x0101010101010101ull) * 0x0102040810204080ull >> 56) << 8 * i;
    }
    return (line.negated ? ~lanes : lanes) & warp.mask;
}

void run_to_barrier(Warp& warp, Launch& launch) {
    const std::vector<Opcode>& all = opcodes();
    for (int64_t steps = 0; warp.alive && !warp.at_barrier; ++steps) {
        if (!warp.mask || !warp.waiting.empty()) choose_group(warp);
        if (!warp.mask) return;
        if (warp.pc >= launch.line_count) throw Fault{"the code ends without ret"};
        const Line& line = launch.lines[warp.pc];
        launch.fault_line = warp.pc;
        if (steps > MOST_STEPS) throw Fault{"a loop does not end"};
        if (line.flags & LABELLED) close_window(warp);  // a label: other code may come before it
        ++launch.counts->warp_instructions;
        ++launch.line_counts[warp.pc].warps;
        warp.branched = false;
        if (const uint32_t mask = guarded(warp, line)) all[line.opcode].handler(warp, line, mask);
        if (!warp.branched) ++warp.pc;
    }
}

void fill_special(Block& block, Warp& warp) {
    const Launch& launch = *block.launch;
    const int64_t x = launch.grid[0], y = launch.grid[1];
    const int64_t place[] = {block.number % x, block.number / x % y, block.number / (x * y)};
    for (int which = 0; which < 8; ++which) {
        if (launch.special[which] < 0) continue;
        uint32_t* row = warp.row<uint32_t>(launch.special[which]);
        for (int lane = 0; lane < LANES; ++lane)
            row[lane] = which == 0 ? warp.index * LANES + lane : which < 4 ? place[which - 1] : which < 7 ? launch.grid[which - 4] : lane;
    }
}

void start_warp(Block& block, Warp& warp, int index) {
    const Launch& launch = *block.launch;
    warp.block = &block;
    warp.index = index;
    warp.rows.assign(launch.rows, launch.rows + launch.row_bytes);
    warp.alive = warp.mask = ALL;
    warp.syncs = 0;
    warp.pc = 0;
    warp.waiting.clear();
    warp.at_barrier = false;
    warp.groups.assign(1, {});
    ++warp.window, warp.seen_count = 0;
    fill_special(block, warp);
}

void run_block(Block& block, int64_t number) {
    Launch& launch = *block.launch;
    block.number = number;
    block.epoch = 1;
    block.shared.assign(launch.shared_bytes, 0xff);  // not a number, where it is never written
    block.shared_bytes.assign(launch.shared_bytes, {0, 0, 0, 0, -1, 0});
    block.warps.resize(launch.threads / LANES);
    for (size_t i = 0; i < block.warps.size(); ++i) start_warp(block, block.warps[i], int(i));
    while (true) {
        for (size_t i = 0; i < block.warps.size(); ++i)
            run_to_barrier(block.warps[launch.backwards ? block.warps.size() - 1 - i : i], launch);
        size_t waiting = 0;
        for (Warp& warp : block.warps) waiting += warp.at_barrier;
        if (!waiting) break;
        if (waiting < block.warps.size()) throw Fault{"a barrier is met by some warps of a block; others have ended"};
        for (Warp& warp : block.warps) warp.at_barrier = false;
        ++block.epoch, ++launch.counts->barriers;
    }
    for (Warp& warp : block.warps)
        if (warp.groups.size() > 1 || !warp.groups.back().empty()) {
            for (auto& group : warp.groups)
                if (!group.empty()) throw Fault{"an asynchronous copy is never waited for"};
        }
}

std::vector<Shadow> make_shadows(const Launch& launch) {
    std::vector<Shadow> shadows;
    for (int i = 0; i < launch.region_count; ++i) {
        const uint64_t size = launch.regions[i].size;
        shadows.push_back({static_cast<GlobalByte*>(calloc(size + 1, sizeof(GlobalByte))), static_cast<uint32_t*>(calloc(size / 32 + 3, 4))});
    }
    return shadows;
}

}  // namespace

extern "C" int run(Launch* launch) {
    noisy = launch->noisy;
    std::vector<Shadow> shadows = make_shadows(*launch);
    Block block;
    block.launch = launch;
    block.shadows = &shadows;
    int failed = 0;
    try {
        for (int64_t i = 0; i < launch->block_count; ++i) run_block(block, launch->blocks[i]);
    } catch (const Fault& fault) {
        const std::string text = "block " + std::to_string(block.number) + " " + fault.text;
        snprintf(launch->fault, sizeof launch->fault, "%s", text.c_str());
        failed = 1;
    }
    for (Shadow& shadow : shadows) free(shadow.bytes), free(shadow.sectors);
    return failed;
}

extern "C" int opcode_count() { return int(opcodes().size()); }
extern "C" const char* opcode_name(int index) { return opcodes()[index].name; }
extern "C" const int8_t* opcode_bytes(int index) { return opcodes()[index].bytes; }
extern "C" int record_bytes(int which) { return which == 0 ? sizeof(Line) : which == 1 ? sizeof(Launch) : which == 2 ? sizeof(Counts) : sizeof(LineCount); }
