// Global memory: bounds, alignment, order between blocks, and the sectors that warps ask for.
#include <algorithm>
#include <bit>

#include "machine.h"

namespace {

constexpr int SECTOR = 32;

std::string hex(uint64_t number) {
    char text[32];
    snprintf(text, sizeof text, "0x%llx", (unsigned long long)number);
    return text;
}

// The region that holds all those bytes.
int find_region(Block& block, uint64_t address, int bytes, const char* what) {
    const Launch& launch = *block.launch;
    for (int i = 0; i < launch.region_count; ++i) {
        const Region& region = launch.regions[i];
        if (address >= region.base && address + bytes <= region.base + region.size) return i;
    }
    std::string nearest = "no tensor";
    uint64_t distance = ~0ull;
    for (int i = 0; i < launch.region_count; ++i) {
        const Region& region = launch.regions[i];
        const uint64_t end = region.base + region.size;
        const uint64_t away = address >= end ? address - end : region.base - address;
        if (away < distance) {
            distance = away;
            nearest = "tensor " + std::to_string(i) + " of " + std::to_string(region.size) +
                      " bytes, at byte " + std::to_string(int64_t(address - region.base));
        }
    }
    throw Fault{std::string(what) + " of " + std::to_string(bytes) + " bytes outside every tensor; nearest is " + nearest};
}

void check_alignment(uint64_t address, int bytes, const char* what) {
    if (address % bytes)
        throw Fault{std::string(what) + " of " + std::to_string(bytes) + " bytes at " + hex(address) + ", which is not aligned"};
}

void mark_read(Block& block, int index, uint64_t at, int bytes) {
    Shadow& shadow = (*block.shadows)[index];
    const uint32_t me = uint32_t(block.number) + 1;
    Counts& counts = *block.launch->counts;
    for (int i = 0; i < bytes; ++i) {
        GlobalByte& byte = shadow.bytes[at + i];
        if (byte.writer && byte.writer != me)
            throw Fault{"reads byte " + std::to_string(at + i) + " of tensor " + std::to_string(index) + ", which block " + std::to_string(byte.writer - 1) + " of this launch writes"};
        if (byte.reader != me) byte.reader = byte.reader ? SEVERAL : me;
        if (byte.last != me) byte.last = me, ++counts.unique_bytes;
    }
    const uint64_t lead = block.launch->regions[index].base % SECTOR;
    for (uint64_t sector = (lead + at) / SECTOR; sector <= (lead + at + bytes - 1) / SECTOR; ++sector)
        if (shadow.sectors[sector] != me) shadow.sectors[sector] = me, ++counts.unique_sectors;
}

void mark_written(Block& block, int index, uint64_t at, int bytes, int thread, const uint8_t* from) {
    Shadow& shadow = (*block.shadows)[index];
    const uint8_t* now = reinterpret_cast<const uint8_t*>(block.launch->regions[index].base) + at;
    const uint32_t me = uint32_t(block.number) + 1;
    const uint32_t tag = block.epoch << 11 | uint32_t(thread);
    for (int i = 0; i < bytes; ++i) {
        GlobalByte& byte = shadow.bytes[at + i];
        auto place = [&] { return "byte " + std::to_string(at + i) + " of tensor " + std::to_string(index); };
        const bool differs = now[i] != from[i];
        if (byte.reader && byte.reader != me)
            throw Fault{"writes " + place() + ", which another block of this launch reads"};
        if (byte.writer && byte.writer != me && differs)
            throw Fault{"writes another value than block " + std::to_string(byte.writer - 1) + " to " + place()};
        if (byte.writer == me && byte.tag != tag && byte.tag >> 11 == block.epoch && differs)
            throw Fault{"writes another value than thread " + std::to_string(byte.tag & 2047) + " to " + place()};
        byte.writer = me;
        byte.tag = tag;
    }
}

// A small set of sectors and which of their bytes were touched, for one instruction of a warp.
struct Sectors {
    uint64_t sector[128];
    uint32_t bytes[128];
    uint8_t slots[128];
    int count = 0;
    Sectors() { std::fill(sector, sector + 128, ~0ull); }

    void add(uint64_t address, int size) {
        while (size > 0) {
            const int from = address % SECTOR, taken = std::min(size, SECTOR - from);
            const uint32_t mask = (taken == 32 ? ~0u : (1u << taken) - 1) << from;
            const uint64_t one = address / SECTOR;
            int slot = one % 128;
            while (sector[slot] != one && sector[slot] != ~0ull) slot = (slot + 1) % 128;
            if (sector[slot] == ~0ull) sector[slot] = one, bytes[slot] = 0, slots[count++] = slot;
            bytes[slot] |= mask;
            address += taken, size -= taken;
        }
    }
};

// What an instruction read goes into the warp's window, where each sector counts once: neighbouring
// loads are joined by ptxas, or met by the nearest cache.
void add_to_window(Warp& warp, uint64_t sector, uint32_t bytes) {
    Counts& counts = *warp.block->launch->counts;
    if (warp.seen_count * 2 >= warp.seen.size()) {
        std::vector<Warp::Seen> old(std::max<size_t>(256, warp.seen.size() * 2), Warp::Seen{0, 0, 0});
        old.swap(warp.seen);
        warp.seen_count = 0;
        for (const Warp::Seen& one : old) {
            if (one.window != warp.window) continue;
            size_t slot = one.sector % warp.seen.size();
            while (warp.seen[slot].window == warp.window) slot = (slot + 1) % warp.seen.size();
            warp.seen[slot] = one, ++warp.seen_count;
        }
    }
    size_t slot = sector % warp.seen.size();
    while (warp.seen[slot].window == warp.window && warp.seen[slot].sector != sector)
        slot = (slot + 1) % warp.seen.size();
    Warp::Seen& entry = warp.seen[slot];
    if (entry.window != warp.window) {
        entry = {sector, 0, warp.window};
        ++warp.seen_count, ++counts.merged_sectors;
    }
    counts.merged_bytes += std::popcount(bytes & ~entry.bytes);
    entry.bytes |= bytes;
}

void load(Warp& warp, const Line& line, uint32_t mask) {
    const uint64_t* addresses = warp.row<uint64_t>(line.operand[line.count]);
    const int bytes = line.size * line.count;
    Launch& launch = *warp.block->launch;
    LineCount& counted = launch.line_counts[&line - launch.lines];
    Sectors sectors;
    uint8_t moved[32];
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const uint64_t address = addresses[lane] + line.offset;
        load_global(warp, line, address, bytes, lane, moved);
        sectors.add(address, bytes);
        for (int i = 0; i < line.count; ++i) place_number(warp, line, i, lane, moved + i * line.size);
    }
    launch.counts->load_sectors += sectors.count;
    counted.sectors += sectors.count;
    for (int i = 0; i < sectors.count; ++i) {
        const int slot = sectors.slots[i];
        counted.bytes += std::popcount(sectors.bytes[slot]);
        add_to_window(warp, sectors.sector[slot], sectors.bytes[slot]);
    }
}

void store(Warp& warp, const Line& line, uint32_t mask) {
    const uint64_t* addresses = warp.row<uint64_t>(line.operand[0]);
    const int bytes = line.size * line.count;
    Block& block = *warp.block;
    Launch& launch = *block.launch;
    LineCount& counted = launch.line_counts[&line - launch.lines];
    Sectors sectors;
    uint8_t moved[32];
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const uint64_t address = addresses[lane] + line.offset;
        check_alignment(address, bytes, "a store");
        const int index = find_region(block, address, bytes, "a store");
        for (int i = 0; i < line.count; ++i)
            std::memcpy(moved + i * line.size, warp.row<uint8_t>(line.operand[i + 1]) + lane * line.width, line.size);
        mark_written(block, index, address - launch.regions[index].base, bytes, warp.index * LANES + lane, moved);
        std::memcpy(reinterpret_cast<void*>(address), moved, bytes);
        sectors.add(address, bytes);
    }
    counted.sectors += sectors.count;
    launch.counts->store_sectors += sectors.count;
    for (int i = 0; i < sectors.count; ++i) {
        const int here = std::popcount(sectors.bytes[sectors.slots[i]]);
        counted.bytes += here, launch.counts->store_bytes += here;
    }
    close_window(warp);
}

void load_parameter(Warp& warp, const Line& line, uint32_t mask) {
    const Launch& launch = *warp.block->launch;
    const uint64_t* places = warp.row<uint64_t>(line.operand[1]);
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const uint64_t place = places[lane] + line.offset;
        if (place % line.size || place + line.size > uint64_t(launch.parameter_bytes))
            throw Fault{"reads a parameter at byte " + std::to_string(place)};
        place_number(warp, line, 0, lane, launch.parameters + place);
    }
}

void copy_async(Warp& warp, const Line& line, uint32_t mask) {
    Launch& launch = *warp.block->launch;
    LineCount& counted = launch.line_counts[&line - launch.lines];
    const uint32_t* to = warp.row<uint32_t>(line.operand[0]);
    const uint64_t* from = warp.row<uint64_t>(line.operand[1]);
    const uint32_t* sizes = line.operand[2] < 0 ? nullptr : warp.row<uint32_t>(line.operand[2]);
    Sectors sectors;
    uint32_t places[LANES] = {};
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const uint32_t taken = sizes ? std::min<uint32_t>(sizes[lane], line.size) : line.size;
        const uint32_t place = places[lane] = to[lane] + uint32_t(line.target);
        const uint64_t address = from[lane] + line.offset;
        check_alignment(place, line.size, "an asynchronous copy to shared memory");
        if (taken) {
            check_alignment(address, line.size, "an asynchronous copy");
            find_region(*warp.block, address, taken, "an asynchronous copy");
            sectors.add(address, taken);
        }
        write_shared(warp, place, line.size, lane, nullptr);  // its bytes come with the wait
        warp.groups.back().push_back({place, address, uint32_t(line.size), taken, lane});
    }
    launch.counts->load_sectors += sectors.count;
    counted.sectors += sectors.count;
    for (int i = 0; i < sectors.count; ++i) {
        const int slot = sectors.slots[i];
        counted.bytes += std::popcount(sectors.bytes[slot]);
        add_to_window(warp, sectors.sector[slot], sectors.bytes[slot]);
    }
    count_banks(warp, line, places, mask, line.size);
}

}  // namespace

void load_global(Warp& warp, const Line&, uint64_t address, int bytes, int, uint8_t* to) {
    check_alignment(address, bytes, "a load");
    Block& block = *warp.block;
    const int index = find_region(block, address, bytes, "a load");
    mark_read(block, index, address - block.launch->regions[index].base, bytes);
    std::memcpy(to, reinterpret_cast<const void*>(address), bytes);
}

void place_number(Warp& warp, const Line& line, int operand, int lane, const uint8_t* from) {
    uint8_t* to = warp.row<uint8_t>(line.operand[operand]) + lane * line.width;
    const bool minus = line.flags & SIGNED && from[line.size - 1] & 128;
    std::memset(to, minus ? 255 : 0, line.width);
    std::memcpy(to, from, std::min(line.size, line.width));
}

void close_window(Warp& warp) { ++warp.window, warp.seen_count = 0; }

void finish_copies(Warp& warp, size_t still_open) {
    // The last group is the one that no commit has closed.
    while (warp.groups.size() > still_open + 1) {
        for (const Warp::Copy& copy : warp.groups.front()) {
            uint8_t moved[32] = {};
            Block& block = *warp.block;
            if (copy.taken) {
                const int index = find_region(block, copy.from, copy.taken, "an asynchronous copy");
                mark_read(block, index, copy.from - block.launch->regions[index].base, copy.taken);
                std::memcpy(moved, reinterpret_cast<const void*>(copy.from), copy.taken);
            }
            for (uint32_t i = 0; i < copy.bytes; ++i) --block.shared_bytes[copy.to + i].copies;
            write_shared(warp, copy.to, copy.bytes, copy.lane, moved);
        }
        warp.groups.erase(warp.groups.begin());
    }
}

void add_memory(std::vector<Opcode>& all) {
    const int8_t any[OPERANDS] = {};
    auto add = [&](const char* name, Handler handler) {
        Opcode opcode{name, handler, {}};
        std::copy(any, any + OPERANDS, opcode.bytes);
        all.push_back(opcode);
    };
    add("ld.param", load_parameter);
    add("ld.global", load);
    add("st.global", store);
    add("cp.async", copy_async);
    add("cp.async.commit_group", [](Warp& warp, const Line&, uint32_t) { warp.groups.emplace_back(); });
    add("cp.async.wait_group", [](Warp& warp, const Line& line, uint32_t) { finish_copies(warp, line.target); });
    add("cp.async.wait_all", [](Warp& warp, const Line&, uint32_t) {
        warp.groups.emplace_back();
        finish_copies(warp, 0);
    });
}
