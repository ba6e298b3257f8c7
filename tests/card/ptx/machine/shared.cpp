// Shared memory: what barriers order, what was never written, and wavefronts that its 32 banks take.
#include <algorithm>

#include "machine.h"

namespace {

constexpr int BANKS = 32;
constexpr int BANK_BYTES = 4;

void check_place(Block& block, uint32_t address, int bytes, const char* what) {
    if (uint64_t(address) + bytes > block.shared.size())
        throw Fault{std::string(what) + " at byte " + std::to_string(address) + " of " + std::to_string(block.shared.size()) + " bytes of shared memory"};
    if (address % std::min(bytes, 16))
        throw Fault{std::string(what) + " of " + std::to_string(bytes) + " bytes at byte " + std::to_string(address) + " of shared memory, which is not aligned"};
}

void load(Warp& warp, const Line& line, uint32_t mask) {
    const uint32_t* addresses = warp.row<uint32_t>(line.operand[line.count]);
    const int bytes = line.size * line.count;
    uint8_t moved[32];
    uint32_t places[LANES] = {};
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        places[lane] = addresses[lane] + uint32_t(line.offset);
        check_place(*warp.block, places[lane], bytes, "a load");
        read_shared(warp, places[lane], bytes, lane, line.used_bytes, moved);
        for (int i = 0; i < line.count; ++i) place_number(warp, line, i, lane, moved + i * line.size);
    }
    count_banks(warp, line, places, mask, bytes);
}

void store(Warp& warp, const Line& line, uint32_t mask) {
    const uint32_t* addresses = warp.row<uint32_t>(line.operand[0]);
    const int bytes = line.size * line.count;
    uint8_t moved[32];
    uint32_t places[LANES] = {};
    for (int lane = 0; lane < LANES; ++lane) {
        if (!(mask >> lane & 1)) continue;
        places[lane] = addresses[lane] + uint32_t(line.offset);
        check_place(*warp.block, places[lane], bytes, "a store");
        for (int i = 0; i < line.count; ++i)
            std::memcpy(moved + i * line.size, warp.row<uint8_t>(line.operand[i + 1]) + lane * line.width, line.size);
        write_shared(warp, places[lane], bytes, lane, moved);
    }
    count_banks(warp, line, places, mask, bytes);
    close_window(warp);
}

}  // namespace

void read_shared(Warp& warp, uint32_t address, int bytes, int lane, uint32_t used, uint8_t* to) {
    Block& block = *warp.block;
    const int thread = warp.index * LANES + lane;
    for (int i = 0; i < bytes; ++i) {
        SharedByte& byte = block.shared_bytes[address + i];
        if (!(used >> i & 1)) continue;
        auto place = [&] { return "byte " + std::to_string(address + i) + " of shared memory"; };
        if (byte.copies)
            throw Fault{"reads " + place() + ", which an asynchronous copy still writes"};
        if (byte.writer < 0) throw Fault{"reads " + place() + ", which nothing has written"};
        if (byte.write_epoch == block.epoch && byte.writer != thread) {
            const bool ours = byte.writer / LANES == warp.index;
            if (!ours || byte.write_sync == warp.syncs)
                throw Fault{"reads " + place() + ", which thread " + std::to_string(byte.writer) + " writes; no barrier lies between"};
        }
        if (byte.read_epoch != block.epoch) byte.read_epoch = block.epoch, byte.readers = 0;
        byte.readers |= 1u << warp.index;
    }
    std::memcpy(to, block.shared.data() + address, bytes);
}

void write_shared(Warp& warp, uint32_t address, int bytes, int lane, const uint8_t* from) {
    Block& block = *warp.block;
    if (uint64_t(address) + bytes > block.shared.size()) check_place(block, address, bytes, "a store");
    for (int i = 0; i < bytes; ++i) {
        SharedByte& byte = block.shared_bytes[address + i];
        auto place = [&] { return "byte " + std::to_string(address + i) + " of shared memory"; };
        const bool differs = !from || block.shared[address + i] != from[i];
        const bool others = byte.read_epoch == block.epoch && byte.readers & ~(1u << warp.index);
        if (others && differs)
            throw Fault{"writes " + place() + ", which another warp reads; no barrier lies between"};
        if (byte.writer >= 0 && byte.write_epoch == block.epoch && byte.writer / LANES != warp.index && differs)
            throw Fault{"writes another value than thread " + std::to_string(byte.writer) + " to " + place()};
        if (byte.copies)
            throw Fault{"writes " + place() + ", which an asynchronous copy still writes"};
        byte.write_epoch = block.epoch;
        byte.writer = int16_t(warp.index * LANES + lane);
        byte.write_sync = warp.syncs;
        if (from)
            block.shared[address + i] = from[i];
        else
            ++byte.copies;
    }
}

// A wavefront serves as many lanes as have 128 bytes together; lanes that ask for one word share it.
void count_banks(Warp& warp, const Line& line, const uint32_t* addresses, uint32_t mask, int bytes) {
    Launch& launch = *warp.block->launch;
    LineCount& counted = launch.line_counts[&line - launch.lines];
    const int together = bytes <= BANK_BYTES ? LANES : LANES * BANK_BYTES / bytes;
    for (int first = 0; first < LANES; first += together) {
        uint32_t words[BANKS][LANES];
        int count[BANKS] = {};
        for (int lane = first; lane < first + together; ++lane) {
            if (!(mask >> lane & 1)) continue;
            for (uint32_t word = addresses[lane] / BANK_BYTES; word <= (addresses[lane] + bytes - 1) / BANK_BYTES; ++word) {
                const int bank = word % BANKS;
                uint32_t* end = words[bank] + count[bank];
                if (std::find(words[bank], end, word) == end) words[bank][count[bank]++] = word;
            }
        }
        const int wavefronts = *std::max_element(count, count + BANKS);
        if (!wavefronts) continue;
        counted.wavefronts += wavefronts;
        counted.ideal += 1;
        counted.worst = std::max<int64_t>(counted.worst, wavefronts);
    }
}

void add_shared(std::vector<Opcode>& all) {
    all.push_back({"ld.shared", load, {}});
    all.push_back({"st.shared", store, {}});
}
